package catalog

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// opPaths is how many paths one operation withdraws, expires or restores.
const opPaths = 1024

// pathCost is roughly what removing one path takes in the log: its row, those of its
// use, and that of its NAR.
const pathCost = 192

// Withdrawal says which paths are to be removed from a cache because somebody asked
// for it.
type Withdrawal struct {
	Cache     CacheName
	HashParts []nix.HashPart
	Purge     bool // their bytes are to be gone from the bucket as far as nothing else shares them
	Now       bool // with Purge: without waiting for those who remember the URLs of their NARs
	Pinned    bool // also those that a pin names

	// Since, if set, has the state that the paths were chosen in. Nothing is removed that
	// was used since, or that a pin needs now, or a path that is new or was used: then, and
	// if that is not known any more, the withdrawal fails with ErrStale. Kept reports paths of
	// that state that do not lead to one that is to go.
	Since *Mark
	Kept  func(nix.HashPart) bool
}

// Withdrawn says what became of a Withdrawal.
type Withdrawn struct {
	Seq    Seq
	Paths  []Path         // that were removed
	Absent []nix.HashPart // that were not there
}

// Withdraw removes a path from a cache, or fails with ErrNoCache or ErrNoPath, or with a
// *PinnedError if a kept revision of a pin names it.
func (c *Catalog) Withdraw(ctx context.Context, cache CacheName, hashPart nix.HashPart) (Seq, error) {
	w, err := c.WithdrawPaths(ctx, Withdrawal{Cache: cache, HashParts: []nix.HashPart{hashPart}})
	if err == nil && len(w.Absent) > 0 {
		err = noPath(cache, hashPart)
	}
	return w.Seq, err
}

// WithdrawPaths removes paths, in as many operations as it takes. It fails with
// ErrNoCache, and with a *PinnedError if a kept revision of a pin names one of them; what
// earlier operations have done stays done.
func (c *Catalog) WithdrawPaths(ctx context.Context, w Withdrawal) (done Withdrawn, err error) {
	ask := sortedHashParts(w.HashParts)
	for part := range slices.Chunk(ask, opPaths) {
		var one Withdrawn
		seq, err := c.wal.Commit(ctx, wal.Op{Name: "withdraw", About: string(w.Cache), Cost: len(part) * pathCost, Build: func(v wal.View) (entries []wal.Entry, err error) {
			one = Withdrawn{}
			entries, err = c.withdraw(v, &w, part, &one)
			return entries, err
		}})
		if err != nil {
			return done, err
		}
		done.Seq = seq
		done.Paths = append(done.Paths, one.Paths...)
		done.Absent = append(done.Absent, one.Absent...)
		c.metrics.withdrawn.Add(len(one.Paths))
	}
	return done, nil
}

func (w *Withdrawal) purge() purge {
	switch {
	case w.Now:
		return purgeNow
	case w.Purge:
		return purgeLater
	}
	return purgeNot
}

func sortedHashParts(hashParts []nix.HashPart) []nix.HashPart {
	sorted := slices.Clone(hashParts)
	slices.SortFunc(sorted, func(a, b nix.HashPart) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(sorted)
}

func (c *Catalog) withdraw(v wal.View, w *Withdrawal, hashParts []nix.HashPart, done *Withdrawn) ([]wal.Entry, error) {
	t, err := c.readTenant(v, w.Cache)
	if err != nil {
		return nil, err
	}
	b, err := newBooks(v)
	if err != nil {
		return nil, err
	}
	var roots map[nix.HashPart]PinRevision
	if !w.Pinned {
		if roots, err = pinned(v, t.cache.ID); err != nil {
			return nil, err
		}
	}
	if err := w.needed(v, t.cache.ID, roots, hashParts); err != nil && !c.mutants.noStaleCheck() {
		return nil, err
	}
	for _, hashPart := range hashParts {
		row, ok, err := read(v, keyspace.AppendPathKey(nil, t.cache.ID, hashPart), keyspace.DecodePath)
		if err != nil {
			return nil, err
		}
		if !ok {
			done.Absent = append(done.Absent, hashPart)
			continue
		}
		if r, is := roots[hashPart]; is {
			return nil, &PinnedError{Cache: w.Cache, Pin: r.Pin, Revision: r.Number, StorePath: r.StorePath}
		}
		if err := b.removePath(t.cache.ID, &row, w.purge()); err != nil {
			return nil, err
		}
		row.Cache = w.Cache
		done.Paths = append(done.Paths, row)
	}
	return b.close()
}

// needed reports paths that have come to be needed since they were chosen.
func (w *Withdrawal) needed(v wal.View, cache CacheID, roots map[nix.HashPart]PinRevision, hashParts []nix.HashPart) error {
	if w.Since == nil {
		return nil
	}
	touches, err := w.Since.unseen(v, w.Since.seen)
	var found map[nix.HashPart]bool
	if err == nil {
		found, err = reached(v, &Expiry{Cache: cache, Live: w.Kept}, touches, roots)
	}
	if errors.Is(err, ErrFenced) || errors.Is(err, ErrTouched) {
		return ErrStale
	}
	for _, hashPart := range hashParts {
		if _, pinned := roots[hashPart]; found[hashPart] && !pinned { // a pin is told of by name
			return ErrStale
		}
	}
	return err
}
