package catalog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/nix"
)

// model is what a map would remember of the operations.
type model struct {
	caches map[CacheName]modelCache
	seq    Seq // of the last change
	pack   uint64
}

type modelCache struct {
	priority int32
	keys     string                  // the secret key, if it was ever set by us
	paths    map[nix.HashPart]string // who published it last
}

// TestAgainstModel runs random operations through three nodes of one bucket, loses
// power and indexes on the way, and wants every answer to be that of the model.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{t: t, model: model{caches: map[CacheName]modelCache{}}, bucket: mkBucket(t)}
		for range 3 {
			n := &node{t: t, bucket: m.bucket, fs: vfs.NewCrashableMem()}
			n.open()
			m.nodes = append(m.nodes, n)
		}
		defer func() {
			for _, n := range m.nodes {
				n.close()
			}
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"create":    m.create,
			"configure": m.configure,
			"destroy":   m.destroy,
			"publish":   m.publish,
			"withdraw":  m.withdraw,
			"path":      m.path,
			"missing":   m.missing,
			"list":      m.list,
			"crash":     m.crash,
			"wipe":      func(rt *rapid.T) { m.node(rt).wipe() },
		})
		for _, n := range m.nodes {
			n.wantSound()
		}
		m.wantSame(rt)
	})
}

type machine struct {
	t      *testing.T
	model  model
	bucket blob.Bucket
	nodes  []*node
}

func (m *machine) node(rt *rapid.T) *node { return m.nodes[rapid.IntRange(0, 2).Draw(rt, "node")] }

func (m *machine) name(rt *rapid.T) CacheName {
	return rapid.SampledFrom([]CacheName{"a", "b", "c"}).Draw(rt, "cache")
}

func (m *machine) storePath(rt *rapid.T) nix.StorePath {
	return mkStorePath(m.t, fmt.Sprint("p", rapid.IntRange(0, 5).Draw(rt, "path")))
}

// want checks the outcome of a change and advances the model if it was made.
func (m *machine) want(rt *rapid.T, what string, seq Seq, err, want error) bool {
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		rt.Fatalf("%s: error %v, want %v", what, err, want)
	}
	if err == nil {
		m.model.seq = max(m.model.seq, seq)
	}
	return err == nil
}

func (m *machine) create(rt *rapid.T) {
	name := m.name(rt)
	_, exists := m.model.caches[name]
	seq, err := m.node(rt).CreateCache(m.t.Context(), Cache{Name: name, Priority: 1})
	if m.want(rt, "create", seq, err, cond(exists, ErrCacheExists)) {
		m.model.caches[name] = modelCache{priority: 1, paths: map[nix.HashPart]string{}}
	}
}

func (m *machine) configure(rt *rapid.T) {
	name, p := m.name(rt), rapid.Int32().Draw(rt, "priority")
	key, err := nix.GenerateSecretKey("k", rand.NewChaCha8([32]byte{byte(p)}))
	if err != nil {
		rt.Fatal(err)
	}
	c, exists := m.model.caches[name]
	seq, err := m.node(rt).ConfigureCache(m.t.Context(), name, func(c *Cache) error {
		c.Priority, c.SecretKey = p, key.Secret()
		return nil
	})
	if m.want(rt, "configure", seq, err, cond(!exists, ErrNoCache)) {
		c.priority, c.keys = p, key.Secret()
		m.model.caches[name] = c
	}
}

func (m *machine) destroy(rt *rapid.T) {
	name := m.name(rt)
	_, exists := m.model.caches[name]
	seq, err := m.node(rt).DestroyCache(m.t.Context(), name)
	if m.want(rt, "destroy", seq, err, cond(!exists, ErrNoCache)) {
		delete(m.model.caches, name)
	}
}

func (m *machine) publish(rt *rapid.T) {
	name, sp := m.name(rt), m.storePath(rt)
	m.model.pack++
	pub := mkPublication(m.t, name, sp.Name(), mkPack(1, m.model.pack, 3))
	pub.Path.By = fmt.Sprint("push ", m.model.pack)
	c, exists := m.model.caches[name]
	seq, err := m.node(rt).Publish(m.t.Context(), pub)
	if m.want(rt, "publish", seq, err, cond(!exists, ErrNoCache)) {
		c.paths[sp.HashPart()] = pub.Path.By
	}
}

func (m *machine) withdraw(rt *rapid.T) {
	name, hp := m.name(rt), m.storePath(rt).HashPart()
	seq, err := m.node(rt).Withdraw(m.t.Context(), name, hp)
	if m.want(rt, "withdraw", seq, err, m.expect(name, hp)) {
		delete(m.model.caches[name].paths, hp)
	}
}

// expect returns how looking for a path must fail.
func (m *machine) expect(name CacheName, hp nix.HashPart) error {
	c, ok := m.model.caches[name]
	if !ok {
		return ErrNoCache
	}
	if _, ok := c.paths[hp]; !ok {
		return ErrNoPath
	}
	return nil
}

// path looks a path up: after waiting for the last change the answer must be the
// model's; without, a node may still serve what is gone, but never deny what is
// there.
func (m *machine) path(rt *rapid.T) {
	n, name, hp := m.node(rt), m.name(rt), m.storePath(rt).HashPart()
	waits := rapid.Bool().Draw(rt, "waits")
	if waits {
		if err := n.Wait(m.t.Context(), m.model.seq); err != nil {
			rt.Fatal(err)
		}
	}
	p, err := n.Path(m.t.Context(), name, hp)
	want := m.expect(name, hp)
	switch {
	case !waits && want != nil:
	case !waits:
		m.want(rt, "path", 0, err, nil)
	case m.want(rt, "path", 0, err, want):
		c := m.model.caches[name]
		if p.By != c.paths[hp] {
			rt.Fatalf("path is by %q, want %q", p.By, c.paths[hp])
		}
		if c.keys != "" {
			key, _ := nix.ParseSecretKey(c.keys)
			sig, _ := nix.ParseSignature(p.Sig)
			if fp, _ := fingerprint(&p); !key.Public().Verify(string(fp), sig) {
				rt.Fatal("path is not signed by the present key")
			}
		}
	}
}

func (m *machine) missing(rt *rapid.T) {
	n, name := m.node(rt), m.name(rt)
	var ask, want []nix.HashPart
	for i := range 6 {
		ask = append(ask, mkStorePath(m.t, fmt.Sprint("p", i)).HashPart())
	}
	if err := n.Wait(m.t.Context(), m.model.seq); err != nil {
		rt.Fatal(err)
	}
	got, err := n.MissingPaths(m.t.Context(), name, ask)
	c, ok := m.model.caches[name]
	if !m.want(rt, "missing", 0, err, cond(!ok, ErrNoCache)) {
		return
	}
	for _, hp := range ask {
		if _, ok := c.paths[hp]; !ok {
			want = append(want, hp)
		}
	}
	if byHash(got); !slices.Equal(got, byHash(want)) {
		rt.Fatalf("missing are %v, want %v", got, want)
	}
}

func byHash(h []nix.HashPart) []nix.HashPart {
	slices.SortFunc(h, func(a, b nix.HashPart) int { return slices.Compare(a[:], b[:]) })
	return h
}

func (m *machine) list(rt *rapid.T) {
	n := m.node(rt)
	caches, err := n.Caches(m.t.Context())
	if err != nil || len(caches) != len(m.model.caches) {
		rt.Fatalf("%d caches, %v; want %d", len(caches), err, len(m.model.caches))
	}
	for _, c := range caches {
		want := m.model.caches[c.Name]
		paths, err := n.Paths(m.t.Context(), c.Name, nil, 100)
		if err != nil || len(paths) != len(want.paths) || c.Priority != want.priority {
			rt.Fatalf("cache %s has %d paths and priority %d, %v; want %d and %d", c.Name, len(paths), c.Priority, err, len(want.paths), want.priority)
		}
	}
}

// crash stops a node without closing its index, and starts it on what the disk
// would have kept.
func (m *machine) crash(rt *rapid.T) {
	n := m.node(rt)
	percent := rapid.IntRange(0, 100).Draw(rt, "percent")
	fs := n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, uint64(percent)))})
	n.close()
	n.fs = fs
	n.open()
}

func (m *machine) wantSame(rt *rapid.T) {
	var want [32]byte
	for i, n := range m.nodes {
		if _, err := n.log.CatchUp(m.t.Context()); err != nil {
			rt.Fatal(err)
		}
		got, err := n.db.Digest()
		if err != nil || i > 0 && got != want {
			rt.Fatalf("node %d has another state than node 0, %v", i, err)
		}
		want = got
	}
}

func cond(is bool, err error) error {
	if is {
		return err
	}
	return nil
}
