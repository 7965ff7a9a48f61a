package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

const (
	// buildTouches is how many touches that the collector has not seen an operation
	// looks at itself, on the sequencer.
	buildTouches = 4096
	// walkPaths is how many paths it reads for that.
	walkPaths = 20_000
	// touchesPage is how many touches are returned at once.
	touchesPage = 1 << 16
)

// Touch is something that a running collection has to look at again.
type Touch = keyspace.Touch

// Mark is a collection that is under way: the state it looks at, and the right to
// remove what it finds dead. There is one at a time: a later one takes the right away.
//
// From the moment it begins, each operation that brings something to life which the
// collection may have overlooked leaves a touch. Operations that remove something are
// given how many touches the collector has taken into account; those after that they
// look at themselves, against the state they change, and spare what they concern. If
// there are too many, they fail with ErrTouched.
type Mark struct {
	catalog    *Catalog
	generation uint32
	joined     bool // it is another's
	seen       uint32
	snapshot   *Snapshot
}

// BeginMark begins a collection and ends any other. It fails with ErrUncounted if a
// cache was never counted, and else with an error of the log.
func (c *Catalog) BeginMark(ctx context.Context) (*Mark, error) {
	m := &Mark{catalog: c}
	return m.begin(ctx, func(v wal.View) ([]wal.Entry, error) {
		row, _, err := read(v, keyspace.AppendMarkKey(nil), keyspace.DecodeMark)
		if err := errors.Join(err, counted(v)); err != nil {
			return nil, err
		}
		return m.next(row), nil
	})
}

// JoinMark returns the collection that is running, and begins one if none is. It is for
// those who make up their minds over its Snapshot what to remove (Withdrawal.Since), and
// who must not keep a collector from its work. To end what was joined does nothing.
func (c *Catalog) JoinMark(ctx context.Context) (*Mark, error) {
	m := &Mark{catalog: c}
	return m.begin(ctx, func(v wal.View) ([]wal.Entry, error) {
		row, _, err := read(v, keyspace.AppendMarkKey(nil), keyspace.DecodeMark)
		if m.joined = row.Running; m.joined || err != nil {
			m.generation = row.Generation
			return nil, err
		}
		return m.next(row), nil
	})
}

// next returns the entries that make m the collection after the one of the row.
func (m *Mark) next(row keyspace.Mark) []wal.Entry {
	m.generation = row.Generation + 1
	return []wal.Entry{
		set(keyspace.AppendMarkKey(nil), keyspace.AppendMark(nil, &keyspace.Mark{Generation: m.generation, Running: true})),
		dropTouches(m.generation),
	}
}

// begin commits what makes m a collection and takes its snapshot.
func (m *Mark) begin(ctx context.Context, build func(wal.View) ([]wal.Entry, error)) (*Mark, error) {
	_, err := m.catalog.wal.Commit(ctx, wal.Op{Name: "begin mark", Cost: 64, Build: build})
	if err == nil {
		m.snapshot, err = m.catalog.Snapshot(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("begin to mark: %w", err)
	}
	row, err := m.row(m.snapshot.view)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin to mark: %w", err), m.snapshot.Close())
	}
	m.seen = row.Touches
	return m, nil
}

// dropTouches removes the touches of all generations before the given one.
func dropTouches(before uint32) wal.Entry {
	return wal.Entry{Kind: wal.DeleteRange, Key: keyspace.AppendTouchPrefix(nil, 0), Value: keyspace.AppendTouchPrefix(nil, before)}
}

// counted reports whether all caches are: what a path of another is made of looks
// unreferenced.
func counted(v wal.View) error {
	for cache, err := range rowsOf(v, "caches", []byte{keyspace.CachePrefix}, keyspace.DecodeCache) {
		if err != nil {
			return err
		}
		if _, ok, err := v.Get(keyspace.AppendTotalsKey(nil, cache.ID)); !ok || err != nil {
			return errors.Join(err, fmt.Errorf("cache %q: %w", string(cache.Name), ErrUncounted))
		}
	}
	return nil
}

// Snapshot returns the state that the collection looks at. Close closes it.
func (m *Mark) Snapshot() *Snapshot { return m.snapshot }

// Generation returns the number of the collection.
func (m *Mark) Generation() uint32 { return m.generation }

// Seen returns how many touches there were already in Snapshot, which shows what they
// concern. Processed touches are counted from there.
func (m *Mark) Seen() uint32 { return m.seen }

// Touches returns the touches after the given serial, in order, and whether there are
// more. It reads the index only.
func (m *Mark) Touches(_ context.Context, after uint32) (touches []Touch, more bool, err error) {
	v, err := m.catalog.db.View()
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	row, err := m.row(v)
	if err != nil {
		return nil, false, err
	}
	touches, err = readTouches(v, m.generation, after, touchesPage)
	return touches, len(touches) > 0 && touches[len(touches)-1].Serial < row.Touches, err
}

func readTouches(v scanner, generation, after uint32, most int) (touches []Touch, err error) {
	prefix := keyspace.AppendTouchPrefix(nil, generation)
	for row, err := range v.Scan(prefix, keyspace.AppendTouchKey(nil, generation, after)) {
		if len(touches) == most {
			break
		}
		var t Touch
		if err == nil {
			t, err = keyspace.DecodeTouch(row.Key, row.Value)
		}
		if err != nil {
			return nil, fmt.Errorf("read touches: %w", err)
		}
		touches = append(touches, t)
	}
	return touches, nil
}

// Current returns the state as the index has it now, to look at what touches concern. The
// caller closes it.
func (m *Mark) Current(ctx context.Context) (*Snapshot, error) { return m.catalog.Snapshot(ctx) }

// row returns the row of the collection that is running, or ErrFenced if it is not this one.
func (m *Mark) row(v getter) (keyspace.Mark, error) {
	row, _, err := read(v, keyspace.AppendMarkKey(nil), keyspace.DecodeMark)
	if err == nil && !m.catalog.mutants.noFence() && (!row.Running || row.Generation != m.generation) {
		err = ErrFenced
	}
	return row, err
}

// unseen returns the touches that the collector has not taken into account.
func (m *Mark) unseen(v wal.View, processed uint32) ([]Touch, error) {
	row, err := m.row(v)
	if err != nil {
		return nil, err
	}
	if m.catalog.mutants.noTouchCheck() || m.catalog.mutants.noFence() && row.Generation != m.generation {
		return nil, nil
	}
	if processed > row.Touches {
		return nil, invalid(fmt.Errorf("%d touches are said to be processed, there are %d", processed, row.Touches))
	}
	if row.Touches-processed > buildTouches {
		return nil, ErrTouched
	}
	return readTouches(v, m.generation, processed, buildTouches)
}

// Expiry says which paths of a cache are to go.
type Expiry struct {
	Cache CacheID
	// Paths are the candidates, a path before what it refers to, with the day of their
	// last use as it was judged: one that was used since is spared.
	Paths []Use
	// Live, if set, reports paths that are known to live with all they refer to. It
	// is only asked of paths that touched ones lead to, in another goroutine, and must
	// not change meanwhile.
	Live func(nix.HashPart) bool
}

// Expired says what became of an Expiry.
type Expired struct {
	Removed  int
	NarBytes int64 // of the paths that were removed
	Spared   []nix.HashPart
}

// Expire removes paths that nothing keeps, in as many operations as it takes. Spared is
// what was used, touched or is referred to by what was touched after the first
// processed touches, and what is pinned. If it fails, what was done stays done.
func (m *Mark) Expire(ctx context.Context, processed uint32, e Expiry) (sum Expired, err error) {
	for part := range slices.Chunk(e.Paths, opPaths) {
		var one Expired
		_, err := m.catalog.wal.Commit(ctx, wal.Op{Name: "expire", Cost: len(part) * pathCost, Build: func(v wal.View) (entries []wal.Entry, err error) {
			one = Expired{}
			touches, err := m.unseen(v, processed)
			if err != nil {
				return nil, err
			}
			return expire(v, &e, part, touches, m.catalog.mutants, &one)
		}})
		if err != nil {
			return sum, fmt.Errorf("expire paths: %w", err)
		}
		sum.Removed += one.Removed
		sum.NarBytes += one.NarBytes
		sum.Spared = append(sum.Spared, one.Spared...)
	}
	return sum, nil
}

func expire(v wal.View, e *Expiry, paths []Use, touches []Touch, mutants Mutants, done *Expired) ([]wal.Entry, error) {
	if _, counted, err := v.Get(keyspace.AppendTotalsKey(nil, e.Cache)); !counted || err != nil {
		return nil, err // the cache was destroyed meanwhile
	}
	roots, err := pinned(v, e.Cache)
	if err != nil {
		return nil, err
	}
	if mutants.noPinCheck() {
		roots = nil
	}
	spared, err := reached(v, e, touches, roots)
	if err != nil {
		return nil, err
	}
	b, err := newBooks(v)
	if err != nil {
		return nil, err
	}
	seen := make(map[nix.HashPart]bool, len(paths))
	for _, u := range paths {
		if seen[u.HashPart] {
			continue
		}
		seen[u.HashPart] = true
		row, there, err := read(v, keyspace.AppendPathKey(nil, e.Cache, u.HashPart), keyspace.DecodePath)
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		last, _, err := read(v, keyspace.AppendLastUseKey(nil, e.Cache, u.HashPart), keyspace.DecodeLastUse)
		if err != nil {
			return nil, err
		}
		if _, is := roots[u.HashPart]; is || spared[u.HashPart] || last.Day != u.Day {
			done.Spared = append(done.Spared, u.HashPart)
			continue
		}
		if err := b.removePath(e.Cache, &row, purgeNot); err != nil {
			return nil, err
		}
		done.Removed++
		done.NarBytes += row.NarSize
	}
	return b.close()
}

// reached returns the paths that touches concern or pins name, and all that these
// lead to. What is known to live is not followed, but what was touched is: it may
// lead elsewhere than it did.
func reached(v wal.View, e *Expiry, touches []Touch, roots map[nix.HashPart]PinRevision) (map[nix.HashPart]bool, error) {
	found := make(map[nix.HashPart]bool)
	var todo []nix.HashPart
	for _, t := range touches {
		if t.Cache == e.Cache && !found[t.HashPart] {
			found[t.HashPart] = true
			todo = append(todo, t.HashPart)
		}
	}
	for hashPart := range roots { // the order decides nothing
		if !found[hashPart] && (e.Live == nil || !e.Live(hashPart)) {
			found[hashPart] = true
			todo = append(todo, hashPart)
		}
	}
	for len(todo) > 0 {
		if len(found) > walkPaths {
			return nil, ErrTouched
		}
		hashPart := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		row, _, err := read(v, keyspace.AppendPathKey(nil, e.Cache, hashPart), keyspace.DecodePath)
		if err != nil {
			return nil, err
		}
		for _, r := range row.References {
			if to := r.HashPart(); !found[to] && (e.Live == nil || !e.Live(to)) {
				found[to] = true
				todo = append(todo, to)
			}
		}
	}
	return found, nil
}

// End ends the collection and removes its touches. A collection that does not end is
// ended by the next, or by a million touches.
func (m *Mark) End(ctx context.Context) error {
	if m.joined {
		return nil
	}
	_, err := m.catalog.wal.Commit(ctx, wal.Op{Name: "end mark", Cost: 64, Build: func(v wal.View) ([]wal.Entry, error) {
		row, err := m.row(v)
		if errors.Is(err, ErrFenced) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		row.Running, row.Touches = false, 0
		return []wal.Entry{
			set(keyspace.AppendMarkKey(nil), keyspace.AppendMark(nil, &row)),
			dropTouches(m.generation + 1),
		}, nil
	}})
	return err
}

// Close lets go of the snapshot. It can be called after End, and without.
func (m *Mark) Close() error { return m.snapshot.Close() }
