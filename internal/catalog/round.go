package catalog

import (
	"context"
	"fmt"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// Round is what the last round of collection said of itself.
type Round = keyspace.Round

// FirstEpoch is the first upload epoch.
const FirstEpoch = keyspace.FirstCount

// SaveRound notes that a round of collection has ended, in place of what the one before
// noted.
func (c *Catalog) SaveRound(ctx context.Context, r Round) error {
	if len(r.Summary) > keyspace.MaxRoundBytes {
		return invalid(fmt.Errorf("summary of a round has %d bytes, want at most %d", len(r.Summary), keyspace.MaxRoundBytes))
	}
	key, value := keyspace.AppendRoundKey(nil), keyspace.AppendRound(nil, &r)
	_, err := c.wal.Commit(ctx, wal.Op{Name: "end round of collection", Cost: len(value), Build: func(wal.View) ([]wal.Entry, error) {
		return []wal.Entry{set(key, value)}, nil
	}})
	if err != nil {
		return fmt.Errorf("note the end of a round of collection: %w", err)
	}
	return nil
}

// LastRound returns the last round of collection that ended, if one has.
func (s *Snapshot) LastRound() (r Round, ok bool, err error) {
	return read(s.view, keyspace.AppendRoundKey(nil), keyspace.DecodeRound)
}
