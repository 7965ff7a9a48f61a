package catalog

import (
	"slices"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// books collects the entries of one operation together with what they change of the
// rows that count: how many paths name a NAR, when a path was last used, the totals
// and growth of caches, and the touches of a running collection. An operation may
// change the same count many times; its row is written once, by close.
type books struct {
	view    wal.View
	entries []wal.Entry
	day     uint32 // the open store day
	mutants Mutants

	nars    map[[32]byte]*narCount
	order   [][32]byte // of nars, for close
	totals  []*Totals  // what is to be added to each row
	growth  []*Growth  // likewise
	touches []Touch
}

// narCount is what an operation makes of the rows of one NAR.
type narCount struct {
	before, now Nar  // Paths 0: there is no row
	fixed       bool // a recount changes it, and counts the store by itself
	orphan      *Unreferenced
	purge       purge
}

// purge says how soon the bytes of a NAR are to be gone once no path names it.
type purge uint8

const (
	purgeNot   purge = iota // when that suits
	purgeLater              // all of them, once those who remember its URL are gone
	purgeNow                // all of them, and at once
)

func newBooks(v wal.View) (*books, error) {
	day, err := counter(v, keyspace.OpenDay)
	return &books{view: v, day: day}, err
}

func (b *books) put(key, value []byte) { b.entries = append(b.entries, set(key, value)) }
func (b *books) drop(key []byte)       { b.entries = append(b.entries, remove(key)) }

// dropAll removes all rows whose keys begin with prefix, which ends in the number of a
// cache.
func (b *books) dropAll(prefix []byte) {
	end := slices.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			break
		}
	}
	b.entries = append(b.entries, wal.Entry{Kind: wal.DeleteRange, Key: prefix, Value: end})
}

// setPath writes the row of a path in place of the one there is, if there is one.
func (b *books) setPath(id keyspace.CacheID, row *Path) error {
	key := keyspace.AppendPathKey(nil, id, row.StorePath.HashPart())
	old, replaces, err := read(b.view, key, keyspace.DecodePath)
	if err != nil {
		return err
	}
	b.put(key, keyspace.AppendPath(nil, row))
	if replaces && old.NarHash != row.NarHash {
		if err := b.unname(&old, purgeNot); err != nil {
			return err
		}
		b.entries = append(b.entries, formerEntry(id, &old, b.day))
	}
	if err := b.name(row, !replaces || old.NarHash != row.NarHash); err != nil {
		return err
	}
	t := Totals{Cache: id, Paths: 1, NarBytes: row.NarSize, ServedBytes: row.FileSize}
	g := Growth{Day: b.day, Cache: id, AddedPaths: 1, AddedBytes: row.NarSize}
	if replaces {
		t.Paths, t.NarBytes, t.ServedBytes = 0, t.NarBytes-old.NarSize, t.ServedBytes-old.FileSize
		if g = (Growth{Day: b.day, Cache: id}); old.NarHash != row.NarHash {
			g.AddedPaths, g.AddedBytes, g.RemovedPaths, g.RemovedBytes = 1, row.NarSize, 1, old.NarSize
		}
	}
	b.count(t)
	b.grow(g)
	return b.use(id, row.StorePath.HashPart())
}

// removePath removes the row of a path, which is old.
func (b *books) removePath(id keyspace.CacheID, old *Path, how purge) error {
	hashPart := old.StorePath.HashPart()
	b.drop(keyspace.AppendPathKey(nil, id, hashPart))
	if err := b.unname(old, how); err != nil {
		return err
	}
	if how == purgeNow { // nobody is to fetch it any more, by whatever URL of this cache
		gone, err := formerGone(b.view, old.NarHash, id)
		if err != nil {
			return err
		}
		b.entries = append(b.entries, gone...)
	} else {
		b.entries = append(b.entries, formerEntry(id, old, b.day))
	}
	b.count(Totals{Cache: id, Paths: -1, NarBytes: -old.NarSize, ServedBytes: -old.FileSize})
	b.grow(Growth{Day: b.day, Cache: id, RemovedPaths: 1, RemovedBytes: old.NarSize})
	return b.unuse(id, hashPart)
}

// use notes that a path was used on the open day.
func (b *books) use(id keyspace.CacheID, hashPart nix.HashPart) error {
	key := keyspace.AppendLastUseKey(nil, id, hashPart)
	last, known, err := read(b.view, key, keyspace.DecodeLastUse)
	if err != nil || known && last.Day == b.day {
		return err
	}
	if known {
		b.drop(keyspace.AppendUseOrderKey(nil, last))
	}
	b.put(key, keyspace.AppendLastUse(nil, b.day))
	b.put(keyspace.AppendUseOrderKey(nil, Use{Cache: id, HashPart: hashPart, Day: b.day}), keyspace.AppendUseOrder(nil))
	return nil
}

// unuse forgets when a path was last used.
func (b *books) unuse(id keyspace.CacheID, hashPart nix.HashPart) error {
	key := keyspace.AppendLastUseKey(nil, id, hashPart)
	last, known, err := read(b.view, key, keyspace.DecodeLastUse)
	if err != nil || !known {
		return err
	}
	b.drop(key)
	b.drop(keyspace.AppendUseOrderKey(nil, last))
	return nil
}

// nar returns what the operation makes of the rows of a NAR.
func (b *books) nar(narHash [32]byte) (*narCount, error) {
	if n := b.nars[narHash]; n != nil {
		return n, nil
	}
	row, _, err := read(b.view, keyspace.AppendNarKey(nil, narHash), keyspace.DecodeNar)
	if err != nil {
		return nil, err
	}
	n := &narCount{before: row, now: row}
	if row.Paths == 0 {
		w, ok, err := read(b.view, keyspace.AppendUnreferencedKey(nil, narHash), keyspace.DecodeUnreferenced)
		if err != nil {
			return nil, err
		}
		if ok {
			n.orphan = &w
		}
	}
	if b.nars == nil {
		b.nars = make(map[[32]byte]*narCount)
	}
	b.nars[narHash] = n
	b.order = append(b.order, narHash)
	return n, nil
}

// name counts a path that names its NAR, if it is a further one.
func (b *books) name(p *Path, further bool) error {
	n, err := b.nar(p.NarHash)
	if err != nil {
		return err
	}
	switch {
	case further:
		n.now.Paths++
	case n.now.Paths == 0: // the path was never counted; see Recount
		return nil
	}
	n.now.NarSize, n.now.ServedSize = p.NarSize, p.FileSize
	return nil
}

// unname counts that a path no longer names its NAR.
func (b *books) unname(p *Path, how purge) error {
	n, err := b.nar(p.NarHash)
	if err != nil || n.now.Paths == 0 {
		return err
	}
	n.now.Paths--
	n.purge = max(n.purge, how)
	return nil
}

// count adds t to the totals of its cache and, as far as it is about paths, to those
// of the store.
func (b *books) count(t Totals) {
	b.add(t)
	if t.Cache != 0 {
		b.add(Totals{Paths: t.Paths, NarBytes: t.NarBytes, ServedBytes: t.ServedBytes, BroughtBytes: t.BroughtBytes, BroughtStored: t.BroughtStored})
	}
}

// add adds t to the totals of its cache alone.
func (b *books) add(t Totals) {
	i := slices.IndexFunc(b.totals, func(have *Totals) bool { return have.Cache == t.Cache })
	if i < 0 {
		b.totals, i = append(b.totals, &Totals{Cache: t.Cache}), len(b.totals)
	}
	b.totals[i].Shift(&t)
}

func (b *books) grow(g Growth) {
	i := slices.IndexFunc(b.growth, func(have *Growth) bool { return have.Cache == g.Cache })
	if i < 0 {
		b.growth = append(b.growth, &g)
		return
	}
	b.growth[i].Add(&g)
}

func (b *books) touch(t Touch) { b.touches = append(b.touches, t) }

// close writes the rows that count and returns all entries.
func (b *books) close() ([]wal.Entry, error) {
	for _, narHash := range b.order {
		b.closeNar(narHash, b.nars[narHash])
	}
	for _, d := range b.totals {
		if err := b.closeTotals(d); err != nil {
			return nil, err
		}
	}
	for _, d := range b.growth {
		if err := b.closeGrowth(d); err != nil {
			return nil, err
		}
	}
	if err := b.closeTouches(); err != nil {
		return nil, err
	}
	return b.entries, nil
}

func (b *books) closeNar(narHash [32]byte, n *narCount) {
	var t Totals
	switch {
	case n.now.Paths > 0 && n.now != n.before:
		b.put(keyspace.AppendNarKey(nil, narHash), keyspace.AppendNar(nil, &n.now))
		if n.orphan != nil {
			b.drop(keyspace.AppendUnreferencedKey(nil, narHash))
			t.Unreferenced--
		}
	case n.now.Paths == 0 && n.before.Paths > 0:
		b.drop(keyspace.AppendNarKey(nil, narHash))
		b.put(keyspace.AppendUnreferencedKey(nil, narHash), keyspace.AppendUnreferenced(nil, &Unreferenced{Day: b.day, Purge: n.purge >= purgeLater, Now: n.purge == purgeNow}))
		t.Unreferenced++
	}
	if n.before.Paths > 0 {
		t.Nars, t.NarsBytes, t.NarsServed = t.Nars-1, t.NarsBytes-n.before.NarSize, t.NarsServed-n.before.ServedSize
	}
	if n.now.Paths > 0 {
		t.Nars, t.NarsBytes, t.NarsServed = t.Nars+1, t.NarsBytes+n.now.NarSize, t.NarsServed+n.now.ServedSize
	}
	if n.fixed {
		t = Totals{Unreferenced: t.Unreferenced}
	}
	b.add(t)
}

// closeTotals writes what the totals of a cache come to. A cache without a row was
// never counted, and counting its paths from now on would make it look as if it was.
func (b *books) closeTotals(d *Totals) error {
	if *d == (Totals{Cache: d.Cache}) {
		return nil
	}
	key := keyspace.AppendTotalsKey(nil, d.Cache)
	row, counted, err := read(b.view, key, keyspace.DecodeTotals)
	if err != nil || !counted && d.Cache != 0 {
		return err
	}
	row.Cache = d.Cache
	row.Add(d)
	b.put(key, keyspace.AppendTotals(nil, &row))
	return nil
}

func (b *books) closeGrowth(d *Growth) error {
	if *d == (Growth{Day: d.Day, Cache: d.Cache}) {
		return nil
	}
	key := keyspace.AppendGrowthKey(nil, d.Day, d.Cache)
	row, _, err := read(b.view, key, keyspace.DecodeGrowth)
	if err != nil {
		return err
	}
	row.Day, row.Cache = d.Day, d.Cache
	row.Add(d)
	b.put(key, keyspace.AppendGrowth(nil, &row))
	return nil
}

// closeTouches leaves the touches for the collection that is running, if one is. One
// that would have to look at too much is ended instead: its collector is dead or
// cannot keep up.
func (b *books) closeTouches() error {
	if len(b.touches) == 0 || b.mutants.noTouches() {
		return nil
	}
	m, _, err := read(b.view, keyspace.AppendMarkKey(nil), keyspace.DecodeMark)
	if err != nil || !m.Running {
		return err
	}
	if int(m.Touches)+len(b.touches) > maxTouches {
		m.Running = false
	} else {
		for i := range b.touches {
			m.Touches++
			b.put(keyspace.AppendTouchKey(nil, m.Generation, m.Touches), keyspace.AppendTouch(nil, &b.touches[i]))
		}
	}
	b.put(keyspace.AppendMarkKey(nil), keyspace.AppendMark(nil, &m))
	return nil
}

// maxTouches is how many touches a collection may have to look at.
const maxTouches = 1_000_000
