package index

import (
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/celler/celler/wal"
)

// View is the state after one slot, for those who read much of it while segments go
// on being applied. It keeps files on the disk that would go otherwise, until it is
// closed. Many goroutines may read it.
type View struct {
	db    *DB
	files *files
	snap  *pebble.Snapshot
	seq   wal.Seq
}

// View returns the state as it is now.
func (db *DB) View() (*View, error) {
	v := &View{db: db, files: db.acquire()}
	v.snap = v.files.pebble.NewSnapshot()
	value, ok, err := v.Get([]byte(wal.SeqKey))
	if err == nil && ok {
		var n uint64
		n, err = wal.DecodeUint64(value)
		v.seq = wal.Seq(n)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the slot of the index: %w", err), v.Close())
	}
	return v, nil
}

// Close lets go of the state. Nobody may be reading it.
func (v *View) Close() error {
	err := v.snap.Close()
	v.files.release()
	if err != nil {
		return v.db.classify("close a view of the index", err)
	}
	return nil
}

// Seq returns the slot after which this was the state.
func (v *View) Seq() wal.Seq { return v.seq }

// Get returns a copy of the value of key, and false if there is none.
func (v *View) Get(key []byte) (value []byte, ok bool, err error) {
	found, closer, err := v.snap.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, v.db.classify("look up a row of the index", err)
	}
	value = slices.Clone(found)
	if value == nil {
		value = []byte{}
	}
	if err := closer.Close(); err != nil {
		return nil, false, v.db.classify("look up a row of the index", err)
	}
	return value, true, nil
}

// Scan yields copies of the rows that start with prefix and sort strictly after
// after.
func (v *View) Scan(prefix, after []byte) iter.Seq2[wal.KV, error] {
	return func(yield func(wal.KV, error) bool) { v.db.scan(v.snap, prefix, after, yield) }
}
