package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// publishBytes is how many bytes of entries PublishAll puts into one operation. They may
// exceed what a segment of several operations has; this is twice that, so that a
// closure of a thousand paths is one slot as a rule.
const publishBytes = 2 << 20

// PublishOptions are the rules for the paths of a PublishAll.
type PublishOptions struct {
	// RefuseAbsent refuses a path whose references are not in the cache, with an
	// *AbsentReferencesError.
	RefuseAbsent bool
}

// Published is what became of a publication.
type Published struct {
	Present  bool  // the path was there, with that NAR
	FileSize int64 // of what is served
}

// PublishAllError says which publications were refused, and so all of them. If chunks or
// references are missing it names all for which that is so.
type PublishAllError struct{ Failed []PublicationError }

// PublicationError is why one publication was refused.
type PublicationError struct {
	Index int // in the list
	Err   error
}

func (e *PublishAllError) Error() string {
	first := e.Failed[0]
	if len(e.Failed) == 1 {
		return fmt.Sprintf("publish path %d: %v", first.Index, first.Err)
	}
	return fmt.Sprintf("publish path %d: %v (and %d more)", first.Index, first.Err, len(e.Failed)-1)
}

// Unwrap returns what was wrong with each.
func (e *PublishAllError) Unwrap() []error {
	errs := make([]error, len(e.Failed))
	for i := range e.Failed {
		errs[i] = e.Failed[i].Err
	}
	return errs
}

// AbsentReferencesError names references of a path that its cache does not have. It is an
// ErrAbsentReferences.
type AbsentReferencesError struct {
	StorePath  nix.StorePath
	References []nix.StorePath
}

// ErrAbsentReferences: a path refers to others that are not in its cache.
var ErrAbsentReferences = errors.New("references are not in the cache")

func (e *AbsentReferencesError) Error() string {
	return fmt.Sprintf("path %s refers to %s and %d more paths that are not in the cache", e.StorePath.Base(), e.References[0].Base(), len(e.References)-1)
}

func (e *AbsentReferencesError) Is(target error) bool { return target == ErrAbsentReferences }

// PublishAll puts paths into one cache, in one operation, as many of the list as that
// holds, from the first one on, and at least one. It tells what became of those. Paths
// see those before them in the list. If one that would be among them is refused nothing
// is committed, and the error is a *PublishAllError.
//
// Packs that a publication brings are committed before, and stay if it is refused.
func (c *Catalog) PublishAll(ctx context.Context, pubs []Publication, o PublishOptions) (Seq, []Published, error) {
	a := publishingAll{o: o}
	now := c.timestamp()
	cost := 0
	for i := range pubs {
		if pubs[i].Path.Cache != pubs[0].Path.Cache {
			return 0, nil, invalid(fmt.Errorf("paths for the caches %q and %q in one operation", string(pubs[0].Path.Cache), string(pubs[i].Path.Cache)))
		}
		u := &publishing{catalog: c, Publication: pubs[i]}
		u.Path.Created = now
		err := u.valid()
		if err != nil {
			err = invalid(err)
		} else if err = u.prepare(ctx); err == nil && len(u.Packs) > 0 {
			err = c.commitPacks(ctx, u.Path.Cache, u.Packs)
			u.Packs = nil
		}
		if err != nil {
			return 0, nil, c.countRefusal(&PublishAllError{Failed: []PublicationError{{Index: i, Err: err}}})
		}
		a.all = append(a.all, u)
		if cost += 512 + 64*len(u.Path.References) + len(u.recipe[0]) + len(u.Listing); cost > publishBytes {
			break // the others will not fit
		}
	}
	if len(a.all) == 0 {
		return 0, nil, invalid(errors.New("no paths to publish"))
	}
	seq, err := c.wal.Commit(ctx, wal.Op{Name: publishOp, About: string(pubs[0].Path.Cache), Cost: cost, Build: a.build})
	if err != nil {
		return 0, nil, c.countRefusal(err)
	}
	c.metrics.published.Add(len(a.done))
	return seq, a.done, nil
}

// publishingAll is a PublishAll on its way. What build leaves is that of its last call,
// whose entries are committed if any are.
type publishingAll struct {
	o       PublishOptions
	all     []*publishing
	entries []wal.Entry
	place   map[string]int // of a key in entries
	bytes   int
	done    []Published
	failed  []PublicationError
}

func (a *publishingAll) build(v wal.View) ([]wal.Entry, error) {
	a.entries, a.bytes, a.done, a.failed = nil, 0, nil, nil
	a.place = make(map[string]int)
	state := wal.NewPreview(v)
	for i, u := range a.all {
		result, entries, err := a.one(state, u)
		switch {
		case errors.Is(err, ErrChunksMissing), errors.Is(err, ErrAbsentReferences):
			a.failed = append(a.failed, PublicationError{Index: i, Err: err})
			state.Apply(entries) // later paths refer to it, and are not to blame
			continue
		case err != nil && len(a.failed) == 0:
			return nil, &PublishAllError{Failed: []PublicationError{{Index: i, Err: err}}}
		case err != nil:
			return nil, &PublishAllError{Failed: a.failed}
		}
		if a.bytes > 0 && a.bytes+sizeOf(entries) > publishBytes {
			break
		}
		state.Apply(entries)
		if len(a.failed) == 0 {
			a.add(entries)
			a.done = append(a.done, result)
		}
	}
	if len(a.failed) > 0 {
		return nil, &PublishAllError{Failed: a.failed}
	}
	return a.entries, nil
}

// one builds a publication on top of those before it. With an error that is told of each
// of them it returns entries as if there was none, as far as others go by them.
func (a *publishingAll) one(state *wal.Preview, u *publishing) (Published, []wal.Entry, error) {
	t, err := u.catalog.readTenant(state, u.Path.Cache)
	if err != nil {
		return Published{}, nil, err
	}
	key := keyspace.AppendPathKey(nil, t.cache.ID, u.Path.StorePath.HashPart())
	old, there, err := read(state, key, keyspace.DecodePath)
	if err != nil {
		return Published{}, nil, err
	}
	entries, err := u.build(state)
	if errors.Is(err, ErrChunksMissing) {
		return Published{}, []wal.Entry{set(key, keyspace.AppendPath(nil, &u.Path))}, err
	}
	if err != nil {
		return Published{}, nil, err
	}
	if a.o.RefuseAbsent {
		if err := wantReferences(state, t.cache.ID, &u.Path); err != nil {
			return Published{}, entries, err
		}
	}
	result := Published{Present: there && old.NarHash == u.Path.NarHash && old.StorePath == u.Path.StorePath}
	for i := range entries {
		if e := &entries[i]; e.Kind == wal.Set && bytes.Equal(e.Key, key) {
			row, err := keyspace.DecodePath(e.Key, e.Value)
			if err != nil {
				return Published{}, nil, err
			}
			result.FileSize = row.FileSize
		}
	}
	return result, entries, nil
}

// wantReferences refuses a path whose references are not there.
func wantReferences(v wal.View, cache keyspace.CacheID, p *Path) error {
	var gone []nix.StorePath
	for _, ref := range p.References {
		if ref == p.StorePath {
			continue
		}
		if _, there, err := v.Get(keyspace.AppendPathKey(nil, cache, ref.HashPart())); err != nil {
			return err
		} else if !there {
			gone = append(gone, ref)
		}
	}
	if len(gone) > 0 {
		return &AbsentReferencesError{StorePath: p.StorePath, References: gone}
	}
	return nil
}

// add appends entries. Each publication changes the rows that count, and only the last
// change of a row matters.
func (a *publishingAll) add(entries []wal.Entry) {
	for _, e := range entries {
		if e.Kind == wal.DeleteRange {
			clear(a.place) // what comes after it must stay after it
		} else if at, again := a.place[string(e.Key)]; again {
			a.bytes += entrySize(&e) - entrySize(&a.entries[at])
			a.entries[at] = e
			continue
		} else {
			a.place[string(e.Key)] = len(a.entries)
		}
		a.entries = append(a.entries, e)
		a.bytes += entrySize(&e)
	}
}

func entrySize(e *wal.Entry) int { return len(e.Key) + len(e.Value) + rowOverhead }

func sizeOf(entries []wal.Entry) (n int) {
	for i := range entries {
		n += entrySize(&entries[i])
	}
	return n
}

// AbsentPaths returns those of hashParts that the cache does not have, sorted and each
// once, as far as it is known here.
func (c *Catalog) AbsentPaths(cache CacheName, hashParts []nix.HashPart) ([]nix.HashPart, error) {
	t, err := c.localTenant(cache)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, noCache(cache)
	}
	ask := slices.Clone(hashParts)
	slices.SortFunc(ask, func(a, b nix.HashPart) int { return bytes.Compare(a[:], b[:]) })
	ask = slices.Compact(ask)
	var gone []nix.HashPart
	key := func(dst []byte, i int) []byte { return keyspace.AppendPathKey(dst, t.cache.ID, ask[i]) }
	for i, err := range c.db.Absent(keyspace.AppendPathPrefix(nil, t.cache.ID), len(ask), key) {
		if err != nil {
			return nil, err
		}
		gone = append(gone, ask[i])
	}
	return gone, nil
}
