package catalog

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// wantCounted checks that all counts are those of a recount.
func (n *node) wantCounted() error {
	s, err := n.Snapshot(n.t.Context())
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	var wrong error
	err = s.CheckCounts(n.t.Context(), func(d Discrepancy) bool {
		wrong = errors.Join(wrong, fmt.Errorf("%s: found %s, want %s", d.Row, d.Found, d.Want))
		return true
	})
	return errors.Join(err, wrong)
}

// TestCollectionAgainstState runs a naive collector in steps, with pushes, pins, uses,
// withdrawals, damage and other collectors between any two of them. Whatever the order,
// nothing goes that lives in the state it goes from, all recipes can be put together, and
// all counts are exact.
func TestCollectionAgainstState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := &node{t: t, bucket: mkBucket(t), fs: vfs.NewMem()}
		n.open()
		m := &collection{node: n, rt: rt}
		defer m.end()
		m.must(n.CreateCache(t.Context(), Cache{Name: "a"}))
		m.must(n.CreateCache(t.Context(), Cache{Name: "b"}))
		rt.Repeat(map[string]func(*rapid.T){
			"":              m.check,
			"publish":       m.publish,
			"publish again": m.publish,
			"upload":        m.upload,
			"side object":   m.side,
			"sweep uploads": m.sweepUploads,
			"withdraw":      m.withdraw,
			"use":           m.use,
			"pin":           m.pin,
			"unpin":         m.unpin,
			"policy":        m.policy,
			"tick":          m.tick,
			"destroy":       m.destroy,
			"mark":          m.begin,
			"expire":        m.expire,
			"expire on":     m.expire,
			"recipes":       m.recipes,
			"condemn":       m.condemn,
			"look":          m.look,
			"move":          m.move,
			"forget":        m.forget,
			"damage":        m.damage,
			"end":           m.endMark,
		})
	})
}

// collection is a machine for rapid: one node and one collector at any step.
type collection struct {
	*node
	rt   *rapid.T
	seed uint64

	mark      *Mark
	processed uint32
	live      map[CacheID]map[nix.HashPart]bool // as of the mark's snapshot, and what was touched since
	marked    map[chunk.PackID]map[uint32]bool
}

func (m *collection) must(_ Seq, err error) {
	if err != nil {
		m.rt.Fatal(err)
	}
}

func (m *collection) end() {
	m.closeMark()
	m.close()
}

func (m *collection) closeMark() {
	if m.mark != nil {
		if err := m.mark.Close(); err != nil {
			m.t.Error(err)
		}
		m.mark = nil
	}
}

func (m *collection) check(rt *rapid.T) {
	m.rt = rt
	if err := m.wantCounted(); err != nil {
		rt.Fatal(err)
	}
	m.wantSound()
	if m.t.Failed() {
		rt.FailNow()
	}
}

func (m *collection) cache() CacheName {
	return rapid.SampledFrom([]CacheName{"a", "b"}).Draw(m.rt, "cache")
}

func (m *collection) name() string {
	return fmt.Sprint("p", rapid.IntRange(0, 7).Draw(m.rt, "path"))
}

// publish pushes a path whose references are other paths of the machine, and whose NAR may
// be one that another path has, new chunks or old ones.
func (m *collection) publish(rt *rapid.T) {
	pub := m.draw(rt)
	if rapid.Bool().Draw(rt, "pins") {
		pub.Pin = &PinChange{Name: "push"}
	}
	if rapid.Bool().Draw(rt, "first") {
		pub.First = true
	}
	if rapid.Bool().Draw(rt, "claims") {
		pub.Claim = &[32]byte{pub.Path.NarHash[0]}
	}
	_, err := m.Publish(m.t.Context(), pub)
	for _, may := range []error{ErrNoCache, ErrChunksMissing, ErrOtherNar, ErrNoUpload} {
		if errors.Is(err, may) {
			return
		}
	}
	if err != nil {
		rt.Fatal(err)
	}
}

// upload puts a NAR there that no path names, or not yet.
func (m *collection) upload(rt *rapid.T) {
	pub := m.draw(rt)
	_, err := m.CommitUpload(m.t.Context(), NarUpload{
		Cache: pub.Path.Cache, FileHash: [32]byte{pub.Path.NarHash[0]}, FileSize: 100, Compression: "xz",
		Recipe: pub.Recipe, Packs: pub.Packs, Listing: pub.Listing,
	})
	if err != nil && !errors.Is(err, ErrNoCache) && !errors.Is(err, ErrChunksMissing) {
		rt.Fatal(err)
	}
}

// side puts a side object there, the text of which may be stored by a recipe that paths
// name, too.
func (m *collection) side(rt *rapid.T) {
	pub := m.draw(rt)
	up := SideUpload{Cache: pub.Path.Cache, Side: Side{Kind: keyspace.SideLog, Name: pub.Path.StorePath.Name()}}
	if rapid.Bool().Draw(rt, "stored") {
		up.Side.Stored, up.Recipe, up.Packs = true, pub.Recipe, pub.Packs
	}
	if _, err := m.PutSide(m.t.Context(), up); err != nil && !errors.Is(err, ErrNoCache) && !errors.Is(err, ErrChunksMissing) {
		rt.Fatal(err)
	}
}

func (m *collection) sweepUploads(rt *rapid.T) {
	if m.mark == nil {
		return
	}
	if _, err := m.mark.SweepUploads(m.t.Context()); err != nil {
		rt.Fatal(err)
	}
}

// draw makes a publication.
func (m *collection) draw(rt *rapid.T) Publication {
	m.rt = rt
	m.seed++
	epoch, err := m.UploadEpoch(m.t.Context())
	if err != nil {
		rt.Fatal(err)
	}
	name := m.name()
	pub := mkPublication(m.t, m.cache(), name, mkPack(epoch, m.seed, 4))
	pub.Path.References = nil
	for range rapid.IntRange(0, 2).Draw(rt, "references") {
		pub.Path.References = append(pub.Path.References, mkStorePath(m.t, m.name()))
	}
	nar := rapid.IntRange(0, 4).Draw(rt, "NAR")
	pub.Path.NarHash, pub.Recipe.NarHash = [32]byte{byte(nar)}, [32]byte{byte(nar)}
	if old := m.oldRuns(rt); old != nil && rapid.Bool().Draw(rt, "shares chunks") {
		pub.Recipe.Runs, pub.Packs = old, nil
	}
	if rapid.Bool().Draw(rt, "listed") {
		pub.Listing = []byte("zstd")
	}
	return pub
}

// oldRuns returns two chunks of a pack there is, as a writer finds it that looked
// before what is condemned since.
func (m *collection) oldRuns(rt *rapid.T) []chunk.Run {
	s := m.snapshot()
	defer func() { _ = s.Close() }()
	var packs []chunk.PackID
	for p, err := range s.Packs() {
		if err != nil {
			rt.Fatal(err)
		}
		packs = append(packs, p.Layout.ID)
	}
	if len(packs) == 0 {
		return nil
	}
	first := rapid.Uint32Range(0, 2).Draw(rt, "first")
	return []chunk.Run{{Pack: rapid.SampledFrom(packs).Draw(rt, "pack"), First: first, Count: 2}}
}

func (m *collection) snapshot() *Snapshot {
	s, err := m.Snapshot(m.t.Context())
	if err != nil {
		m.rt.Fatal(err)
	}
	return s
}

func (m *collection) withdraw(rt *rapid.T) {
	m.rt = rt
	w := Withdrawal{Cache: m.cache(), HashParts: []nix.HashPart{mkStorePath(m.t, m.name()).HashPart()}, Purge: rapid.Bool().Draw(rt, "purge"), Pinned: true}
	if _, err := m.WithdrawPaths(m.t.Context(), w); err != nil && !errors.Is(err, ErrNoCache) {
		rt.Fatal(err)
	}
}

func (m *collection) use(rt *rapid.T) {
	m.rt = rt
	if err := m.RecordUses(m.t.Context(), []PathKey{{m.cache(), mkStorePath(m.t, m.name()).HashPart()}, {m.cache(), mkStorePath(m.t, m.name()).HashPart()}}); err != nil {
		rt.Fatal(err)
	}
}

func (m *collection) pin(rt *rapid.T) {
	m.rt = rt
	p := PinChange{Cache: m.cache(), Name: "pin", StorePath: mkStorePath(m.t, m.name()), Policy: &PinPolicy{KeepRevisions: rapid.Uint32Range(0, 2).Draw(rt, "keep")}}
	if _, err := m.SetPin(m.t.Context(), p); err != nil && !errors.Is(err, ErrNoCache) {
		rt.Fatal(err)
	}
}

func (m *collection) unpin(rt *rapid.T) {
	m.rt = rt
	name := rapid.SampledFrom([]string{"pin", "push"}).Draw(rt, "pin")
	if _, err := m.RemovePin(m.t.Context(), m.cache(), name); err != nil && !errors.Is(err, ErrNoCache) && !errors.Is(err, ErrNoPin) {
		rt.Fatal(err)
	}
}

func (m *collection) policy(rt *rapid.T) {
	m.rt = rt
	p := PinPolicy{KeepRevisions: rapid.Uint32Range(1, 3).Draw(rt, "keep"), KeepForever: rapid.Bool().Draw(rt, "forever")}
	if _, err := m.SetPinPolicy(m.t.Context(), m.cache(), "pin", p); err != nil && !errors.Is(err, ErrNoCache) && !errors.Is(err, ErrNoPin) {
		rt.Fatal(err)
	}
}

func (m *collection) tick(rt *rapid.T) {
	m.rt = rt
	if _, err := m.Tick(m.t.Context(), TickOptions{}); err != nil {
		rt.Fatal(err)
	}
}

func (m *collection) destroy(rt *rapid.T) {
	m.rt = rt
	if !rapid.Bool().Draw(rt, "really") {
		return
	}
	name := m.cache()
	m.must(m.DestroyCache(m.t.Context(), name))
	m.must(m.CreateCache(m.t.Context(), Cache{Name: name}))
}

// living returns what lives in a state: what was used on its open day or is pinned,
// and what these lead to.
func (m *collection) living(s *Snapshot) map[CacheID]map[nix.HashPart]bool {
	all := map[CacheID]map[nix.HashPart]bool{}
	caches, err := s.Caches()
	if err != nil {
		m.rt.Fatal(err)
	}
	k, err := s.Clock()
	if err != nil {
		m.rt.Fatal(err)
	}
	for _, c := range caches {
		live := map[nix.HashPart]bool{}
		all[c.ID] = live
		for u, err := range s.Uses(c.ID) {
			if err != nil {
				m.rt.Fatal(err)
			}
			if u.Day == k.Day {
				m.reach(s, c.ID, u.HashPart, live)
			}
		}
		pins, err := s.Pins(c.ID)
		if err != nil {
			m.rt.Fatal(err)
		}
		for _, p := range pins {
			for i, r := range p.Revisions {
				if p.Kept[i] {
					m.reach(s, c.ID, r.StorePath.HashPart(), live)
				}
			}
		}
	}
	return all
}

func (m *collection) reach(s *Snapshot, id CacheID, hashPart nix.HashPart, live map[nix.HashPart]bool) {
	if live[hashPart] {
		return
	}
	live[hashPart] = true
	p, ok, err := s.Path(id, hashPart)
	if err != nil {
		m.rt.Fatal(err)
	}
	if ok {
		for _, r := range p.References {
			m.reach(s, id, r.HashPart(), live)
		}
	}
}
