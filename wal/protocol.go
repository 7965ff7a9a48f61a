package wal

import "context"

// What a program that writes has to know is more than what is in the log: which rows
// go together, say. Protocol versions stand for that.
//
//	1  the log, and rows that count nothing
//	2  what is committed keeps all rows that count, and leaves the touches by which a
//	   collection learns of it (internal/catalog)
//
// A bucket is founded for version 1, and stays open to those who know no more until
// somebody does what they would spoil.

// ExcludeEarlier has programs of an earlier protocol refused as writers from now on. Whatever is committed after the next slot of
// this Log is not theirs: to know that slot they must have read ROOT after it.
func (l *Log) ExcludeEarlier(ctx context.Context) error {
	_, err := RootChange{By: "celler"}.Swap(ctx, l.bucket, func(r *Root) error {
		r.MinWriter = max(r.MinWriter, protocolVersion)
		return nil
	})
	return err
}
