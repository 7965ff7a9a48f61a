package catalog

import (
	"errors"
	"slices"

	"pgregory.net/rapid"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/nix"
)

func (m *collection) begin(rt *rapid.T) {
	m.rt = rt
	m.closeMark()
	mark, err := m.BeginMark(m.t.Context())
	if err != nil {
		rt.Fatal(err)
	}
	m.mark, m.processed, m.marked = mark, mark.Seen(), nil
	m.live = m.living(mark.Snapshot())
}

// look takes the touches into account.
func (m *collection) look(rt *rapid.T) {
	m.rt = rt
	if m.mark == nil {
		return
	}
	touches, more, err := m.mark.Touches(m.t.Context(), m.processed)
	if err != nil || more {
		rt.Fatal(more, err)
	}
	s := m.snapshot()
	defer func() { _ = s.Close() }()
	for _, touch := range touches {
		m.processed = touch.Serial
		if touch.Cache != 0 && m.live[touch.Cache] != nil {
			m.live[touch.Cache][touch.HashPart] = false // may lead elsewhere than it did
			m.reach(s, touch.Cache, touch.HashPart, m.live[touch.Cache])
		}
		if touch.Recipe && m.marked != nil {
			r, ok, err := s.Recipe(touch.NarHash)
			if err != nil {
				rt.Fatal(err)
			}
			if ok {
				m.markRecipe(&r)
			}
		}
	}
}

// expire tries to remove all paths that were not live when the collector looked.
func (m *collection) expire(rt *rapid.T) {
	m.rt = rt
	if m.mark == nil {
		return
	}
	caches, err := m.mark.Snapshot().Caches()
	if err != nil {
		rt.Fatal(err)
	}
	for _, c := range caches {
		live := m.live[c.ID]
		e := Expiry{Cache: c.ID, Live: func(h nix.HashPart) bool { return live[h] }}
		if rapid.Bool().Draw(rt, "without Live") {
			e.Live = nil
		}
		for u, err := range m.mark.Snapshot().Uses(c.ID) {
			if err != nil {
				rt.Fatal(err)
			}
			if !live[u.HashPart] {
				e.Paths = append(e.Paths, u)
			}
		}
		before := m.snapshot()
		now := m.livingToday(before, m.mark.Snapshot())
		_, err := m.mark.Expire(m.t.Context(), m.processed, e)
		if err != nil && !errors.Is(err, ErrTouched) {
			rt.Fatal(err)
		}
		after := m.snapshot()
		for hashPart := range now[c.ID] {
			_, was, err1 := before.Path(c.ID, hashPart)
			_, is, err2 := after.Path(c.ID, hashPart)
			if err1 != nil || err2 != nil {
				rt.Fatal(err1, err2)
			}
			if was && !is {
				rt.Fatalf("path %v of cache %d lived and is gone", hashPart, c.ID)
			}
		}
		if err := errors.Join(before.Close(), after.Close()); err != nil {
			rt.Fatal(err)
		}
	}
}

// livingToday is living in s, by the day that was open when the collection began.
func (m *collection) livingToday(s, began *Snapshot) map[CacheID]map[nix.HashPart]bool {
	k, err := began.Clock()
	if err != nil {
		m.rt.Fatal(err)
	}
	all := m.living(s)
	for id, live := range all {
		for u, err := range s.Uses(id) {
			if err != nil {
				m.rt.Fatal(err)
			}
			if u.Day >= k.Day {
				m.reach(s, id, u.HashPart, live)
			}
		}
	}
	return all
}

// recipes removes all recipes without a path, and then looks at all others that the
// snapshot has.
func (m *collection) recipes(rt *rapid.T) {
	m.rt = rt
	if m.mark == nil || m.marked != nil {
		return
	}
	s := m.snapshot()
	nars, err := collect(s.Unreferenced())
	if err := errors.Join(err, s.Close()); err != nil {
		rt.Fatal(err)
	}
	removed, err := m.mark.RemoveRecipes(m.t.Context(), nars)
	if err != nil {
		rt.Fatal(err)
	}
	m.marked = map[chunk.PackID]map[uint32]bool{}
	m.processed = m.mark.Seen() // touches of recipes were passed over so far
	for r, err := range m.mark.Snapshot().Recipes() {
		if err != nil {
			rt.Fatal(err)
		}
		if !slices.ContainsFunc(removed, func(u Unreferenced) bool { return u.NarHash == r.NarHash }) {
			m.markRecipe(&r)
		}
	}
}

func (m *collection) markRecipe(r *chunk.Recipe) {
	for _, run := range r.Runs {
		if m.marked[run.Pack] == nil {
			m.marked[run.Pack] = map[uint32]bool{}
		}
		for i := range run.Count {
			m.marked[run.Pack][run.First+i] = true
		}
	}
}

// condemn tries to make all chunks dead that the collector has not marked, in packs
// that the snapshot has or that came since.
func (m *collection) condemn(rt *rapid.T) {
	m.rt = rt
	if m.mark == nil || m.marked == nil {
		return
	}
	s := m.snapshot()
	dead := m.unmarked(s)
	if err := s.Close(); err != nil {
		rt.Fatal(err)
	}
	if _, err := m.mark.Condemn(m.t.Context(), m.processed, dead); err != nil && !errors.Is(err, ErrTouched) {
		rt.Fatal(err)
	}
}

func (m *collection) unmarked(s *Snapshot) (dead []DeadChunks) {
	ids := map[chunk.Location]chunk.ID{}
	for c, err := range s.Chunks() {
		if err != nil {
			m.rt.Fatal(err)
		}
		ids[c.Location] = c.ID
	}
	for p, err := range s.Packs() {
		if err != nil {
			m.rt.Fatal(err)
		}
		d := DeadChunks{Pack: p.Layout.ID}
		for i := range uint32(len(p.Layout.Sizes)) {
			if !m.marked[d.Pack][i] {
				d.Chunks = append(d.Chunks, DeadChunk{Index: i, ID: ids[chunk.Location{Pack: d.Pack, Index: i}]})
			}
		}
		dead = append(dead, d)
	}
	return dead
}

// move puts all packs that live into one object, without what is dead in them.
func (m *collection) move(rt *rapid.T) {
	m.rt = rt
	epoch, err := m.UploadEpoch(m.t.Context())
	if err != nil {
		rt.Fatal(err)
	}
	m.seed++
	move := Move{Object: chunk.PackID{Epoch: epoch, Rand: 1<<32 + m.seed}, Bytes: 500}
	s := m.snapshot()
	for p, err := range s.Packs() {
		if err != nil {
			rt.Fatal(err)
		}
		if p.Condemned.Chunks() == int64(len(p.Layout.Sizes)) || !rapid.Bool().Draw(rt, "moves") {
			continue
		}
		l := p.Layout
		l.Object, l.Bytes, l.Footer = move.Object, move.Bytes, 400
		l.Sizes = slices.Clone(l.Sizes)
		for i := range l.Sizes {
			if p.Condemned.Overlaps(uint32(i), 1) {
				l.Sizes[i] = 0
			}
		}
		l.Frames = mkFrames(l.Sizes)
		move.Packs = append(move.Packs, MovedPack{Old: p.Layout, New: l})
	}
	if err := s.Close(); err != nil {
		rt.Fatal(err)
	}
	if len(move.Packs) == 0 {
		return
	}
	if rapid.IntRange(0, 3).Draw(rt, "loses a chunk") == 0 {
		l := &move.Packs[0].New
		if i := slices.IndexFunc(l.Sizes, func(n uint32) bool { return n != 0 }); i >= 0 {
			l.Sizes[i] = 0
			l.Frames = mkFrames(l.Sizes)
			if _, err := m.MovePacks(m.t.Context(), move); !errors.Is(err, ErrStale) {
				rt.Fatalf("a pack was moved without a chunk that lives: %v", err)
			}
			return
		}
	}
	if _, err := m.MovePacks(m.t.Context(), move); err != nil {
		rt.Fatal(err)
	}
}

// mkFrames lays chunks out one a frame, with nothing for the holes among them.
func mkFrames(sizes []uint32) (frames []chunk.Frame) {
	at := int64(0)
	for i, size := range sizes {
		if size != 0 {
			frames = append(frames, chunk.Frame{Offset: at, Size: 10, Chunks: 1})
			at += 10
			continue
		}
		if n := len(frames); i > 0 && frames[n-1].Size == 0 {
			frames[n-1].Chunks++
			continue
		}
		frames = append(frames, chunk.Frame{Offset: at, Chunks: 1})
	}
	return frames
}

func (m *collection) forget(rt *rapid.T) {
	m.rt = rt
	s := m.snapshot()
	buried, err := collect(s.Buried())
	if err != nil {
		rt.Fatal(err)
	}
	x, err := collect(s.Condemned())
	if err := errors.Join(err, s.Close()); err != nil {
		rt.Fatal(err)
	}
	if err := m.Forget(m.t.Context(), buried); err != nil {
		rt.Fatal(err)
	}
	var packs []chunk.PackID
	for i := range x {
		packs = append(packs, x[i].Pack)
	}
	if m.mark != nil {
		if err := m.mark.PurgeDone(m.t.Context(), packs); err != nil {
			rt.Fatal(err)
		}
	}
	if _, err := m.ForgetCondemned(m.t.Context(), packs); err != nil {
		rt.Fatal(err)
	}
}

// damage loses a chunk for good and does what a check then does.
func (m *collection) damage(rt *rapid.T) {
	m.rt = rt
	ctx := m.t.Context()
	s := m.snapshot()
	defer func() { _ = s.Close() }()
	packs, err := collect(s.Packs())
	if err != nil {
		rt.Fatal(err)
	}
	if len(packs) == 0 {
		return
	}
	p := rapid.SampledFrom(packs).Draw(rt, "pack")
	d := DeadChunks{Pack: p.Layout.ID, Chunks: []DeadChunk{{Index: rapid.Uint32Range(0, 3).Draw(rt, "chunk")}}}
	if _, err := m.MarkDamaged(ctx, []DeadChunks{d}); err != nil {
		rt.Fatal(err)
	}
	caches, err := s.Caches()
	if err != nil {
		rt.Fatal(err)
	}
	var nars [][32]byte
	for r, err := range s.Recipes() {
		if err != nil {
			rt.Fatal(err)
		}
		nars = append(nars, r.NarHash)
	}
	for _, c := range caches {
		var all []nix.HashPart
		for p, err := range s.Paths(c.ID) {
			if err != nil {
				rt.Fatal(err)
			}
			all = append(all, p.StorePath.HashPart())
		}
		if _, err := m.WithdrawBroken(ctx, c.ID, all); err != nil {
			rt.Fatal(err)
		}
		if _, err := m.RemoveBrokenSides(ctx, c.ID); err != nil {
			rt.Fatal(err)
		}
	}
	if _, err := m.RemoveBroken(ctx, nars); err != nil {
		rt.Fatal(err)
	}
	chunks, err := collect(s.Chunks())
	if err != nil {
		rt.Fatal(err)
	}
	if _, err := m.RemoveChunks(ctx, chunks); err != nil {
		rt.Fatal(err)
	}
}

func (m *collection) endMark(rt *rapid.T) {
	m.rt = rt
	if m.mark != nil {
		if err := m.mark.End(m.t.Context()); err != nil {
			rt.Fatal(err)
		}
		if _, err := m.mark.Condemn(m.t.Context(), 0, []DeadChunks{{Chunks: []DeadChunk{{}}}}); !errors.Is(err, ErrFenced) {
			rt.Fatalf("condemning after the end: %v, want %v", err, ErrFenced)
		}
		m.closeMark()
	}
}
