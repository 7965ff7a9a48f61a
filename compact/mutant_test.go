//go:build mutant

package compact_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/index"
	"github.com/celler/celler/wal"
)

// Each rule of folding and merging, left out, must be missed.
func TestFoldMutantsAreCaught(t *testing.T) {
	for name, broken := range map[string]compact.Mutants{
		"drops tombstones too early": {DropTombstones: true},
		"tables of the lowest level": {LowestLevel: true},
		"no sessions in snapshots":   {NoSessions: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				b := memblob.New()
				h := mkHistory(t, b, seed)
				h.grow(60)
				o := aggressive()
				o.FlushSegments = 100
				o.Mutants = broken
				for range 10 {
					h.grow(1 + h.rng.IntN(12))
					_, err := compact.New(b, o).Round(t.Context(), compact.Mode{Steal: true})
					if d := h.differs(); err != nil || d != "" {
						t.Logf("caught at seed %d: %v %.200s", seed, err, d)
						return
					}
				}
			}
			t.Error("survived 20 histories")
		})
	}
}

// Each rule about bookmarks and the past, left out, must do harm; the rules as they are
// must not.
func TestPastMutantsAreCaught(t *testing.T) {
	for _, c := range []struct {
		name   string
		broken compact.Mutants
		harm   func(t *testing.T, m compact.Mutants) bool
	}{
		{"snapshots are deleted of which nobody was told", compact.Mutants{NoDoom: true}, doomedIsMarked},
		{"the floor is raised past a bookmark that was not seen", compact.Mutants{NoMarkCheck: true}, markIsOverlooked},
		{"snapshots are made of what was truncated", compact.Mutants{NoReadCheck: true}, phantomIsFolded},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.harm(t, compact.Mutants{}) {
				t.Error("harm is done without the mutant")
			}
			if !c.harm(t, c.broken) {
				t.Error("nobody notices the mutant")
			}
		})
	}
}

func broken(m compact.Mutants) compact.Options {
	o := aggressive()
	o.Mutants = m
	return o
}

// isAsItWas reports whether the state of a slot can be had, and is what it was.
func isAsItWas(t *testing.T, b blob.Bucket, seq wal.Seq, want [32]byte) bool {
	t.Helper()
	p, err := index.OpenPast(t.Context(), b, "past", seq, index.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20})
	if err != nil {
		return false
	}
	got, err := p.Digest()
	if err := errors.Join(err, p.Close()); err != nil {
		t.Fatal(err)
	}
	return got == want
}

// doomedIsMarked sets a bookmark while a compactor sleeps that is about to delete.
func doomedIsMarked(t *testing.T, m compact.Mutants) bool {
	b, _, state := mkDoomed(t)
	acknowledged := false
	slow := &onDelete{Bucket: b, act: func() error { acknowledged = mark(t, b, 7) == nil; return nil }}
	mustRound(t, compact.New(slow, broken(m)), compact.Mode{})
	return acknowledged && !isAsItWas(t, b, 7, state)
}

// markIsOverlooked sets a bookmark ahead of the swap that raises the floor.
func markIsOverlooked(t *testing.T, m compact.Mutants) bool {
	b := memblob.New()
	h := mkHistory(t, b, 5)
	h.grow(7)
	state := mustDigest(t, h.replay)
	h.grow(5)
	slow := &onSwap{Bucket: b, raise: func() { mustMark(t, b, "seven", 7) }}
	mustRound(t, compact.New(slow, broken(m)), compact.Mode{})
	return !isAsItWas(t, b, 7, state)
}

// onGet calls act ahead of the first read of a key.
type onGet struct {
	blob.Bucket
	key blob.Key
	act func()
}

func (b *onGet) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	if act := b.act; act != nil && key == b.key {
		b.act = nil
		act()
	}
	return b.Bucket.Get(ctx, key)
}

// onPut calls act after objects were put whose names begin with prefix.
type onPut struct {
	blob.Bucket
	prefix string
	act    func()
}

func (b *onPut) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	tag, err := b.Bucket.Put(ctx, key, body)
	if strings.HasPrefix(string(key), b.prefix) {
		b.act()
	}
	return tag, err
}

// phantomIsFolded has a compactor make a snapshot for a bookmark that goes, so that the log
// is truncated under it, and has a writer that slept fill the slot anew.
func phantomIsFolded(t *testing.T, m compact.Mutants) bool {
	b := memblob.New()
	h := mkHistory(t, b, 5)
	h.grow(6)
	phantom, err := wal.AppendSegment(nil, &wal.Segment{
		Store: h.store, Seq: 7, Prev: h.prev, Writer: wal.WriterID{9}, Batch: 1, Time: time.UnixMilli(1),
		Entries: []wal.Entry{{Kind: wal.Set, Key: []byte("phantom"), Value: []byte("!")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.grow(1)
	state := mustDigest(t, h.replay)
	h.grow(5)
	o := aggressive()
	o.KeepSegments = 1000
	mustRound(t, compact.New(b, o), compact.Mode{})
	mustMark(t, b, "seven", 7)
	slow := &onGet{Bucket: b, key: wal.Seq(7).Key(), act: func() {
		if err := (wal.RootChange{}).DropBookmark(t.Context(), b, "seven"); err != nil {
			t.Fatal(err)
		}
		root, err := wal.RootChange{}.Swap(t.Context(), b, func(r *wal.Root) error { r.Floor = r.Snapshot.Seq; return nil })
		for seq := wal.Seq(1); seq < root.Floor && err == nil; seq++ {
			err = b.Delete(t.Context(), seq.Key())
		}
		if err == nil {
			_, err = b.Create(t.Context(), wal.Seq(7).Key(), phantom)
		}
		if err != nil {
			t.Fatal(err)
		}
	}}
	harm := false
	seen := &onPut{Bucket: slow, prefix: "snap/" + wal.Seq(7).String(), act: func() { harm = harm || !isAsItWas(t, b, 7, state) }}
	_, _ = compact.New(seen, broken(m)).Round(t.Context(), compact.Mode{})
	if slow.act != nil {
		t.Fatal("nobody reads the slot of the bookmark")
	}
	return harm
}
