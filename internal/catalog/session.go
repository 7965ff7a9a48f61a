package catalog

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/celler/celler/wal"
)

const (
	// A writer that has been silent for so long is forgotten. If it lives, it goes on
	// under another id; what it had in doubt it can then no longer find out.
	silentSlots = 1_000_000
	silentTime  = 24 * time.Hour
)

// SweepSessions makes the log forget writers that have been silent for a day and a
// million slots, and returns how many. now is the bucket's time, from Tick.
func (c *Catalog) SweepSessions(ctx context.Context, now Clock) (int, error) {
	return c.sweepSessions(ctx, now, silentSlots)
}

func (c *Catalog) sweepSessions(ctx context.Context, now Clock, slots Seq) (swept int, err error) {
	tail := c.Seq()
	var silent []wal.KV
	for row, err := range c.db.Scan([]byte(sessionPrefix), nil) {
		if err != nil {
			return 0, fmt.Errorf("sweep sessions: %w", err)
		}
		seq, err := sessionSlot(row.Value)
		if err != nil {
			return 0, fmt.Errorf("sweep sessions: %w", err)
		}
		if seq+slots < tail && now.sinceSlot(seq) >= silentTime {
			silent = append(silent, row)
		}
	}
	for part := range slices.Chunk(silent, opPaths) {
		n := 0
		_, err := c.wal.Commit(ctx, wal.Op{Name: "sweep sessions", Cost: len(part) * 48, Build: func(v wal.View) (entries []wal.Entry, err error) {
			entries, n, err = dropSessions(v, part)
			return entries, err
		}})
		if err != nil {
			return swept, fmt.Errorf("sweep sessions: %w", err)
		}
		swept += n
	}
	return swept, nil
}

// dropSessions removes those of the rows that are as they were, with the numbers that
// the writer's lanes have come to.
func dropSessions(v wal.View, rows []wal.KV) (entries []wal.Entry, dropped int, err error) {
	for _, row := range rows {
		value, ok, err := v.Get(row.Key)
		if err != nil {
			return nil, 0, err
		}
		if !ok || !bytes.Equal(value, row.Value) {
			continue // it has written meanwhile
		}
		dropped++
		entries = append(entries, remove(row.Key))
		writer, err := wal.ParseWriterID(string(row.Key[len(sessionPrefix):]))
		if err != nil {
			return nil, 0, err
		}
		if _, has, err := v.Get(wal.LanesKey(writer)); err != nil {
			return nil, 0, err
		} else if has {
			entries = append(entries, remove(wal.LanesKey(writer)))
		}
	}
	return entries, dropped, nil
}

const sessionPrefix = "!session/"

// sessionSlot returns the slot in a session's row.
func sessionSlot(value []byte) (Seq, error) {
	if len(value) != wal.SessionBytes {
		return 0, fmt.Errorf("a session has %d bytes, want %d", len(value), wal.SessionBytes)
	}
	n, err := wal.DecodeUint64(value[8:16])
	return Seq(n), err
}

// sinceSlot returns how long ago, at least, a slot was written: it was when the first
// day that ended after it did.
func (k *Clock) sinceSlot(seq Seq) time.Duration {
	for i := range k.days {
		if y := &k.days[i]; y.Slot >= uint64(seq) && !y.Ended.IsZero() {
			return max(0, k.Now.Sub(y.Ended))
		}
	}
	return 0
}
