package wal

import (
	"context"
	"fmt"
	"time"
)

// SlotTime returns when the object in a slot was written, by the clock of the bucket. It
// is the only clock that all writers share; what must not depend on anybody's own is
// measured by it. It fails if the slot was truncated.
func (l *Log) SlotTime(ctx context.Context, seq Seq) (time.Time, error) {
	key := seq.Key()
	for info, err := range l.bucket.List(ctx, key, "") {
		if err != nil {
			return time.Time{}, fmt.Errorf("ask when slot %v was written: %w", seq, err)
		}
		if info.Key == key && !info.ModTime.IsZero() {
			return info.ModTime, nil
		}
		break
	}
	return time.Time{}, fmt.Errorf("ask when slot %v was written: the bucket lists no %s", seq, key)
}
