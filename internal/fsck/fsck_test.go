package fsck_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/fsck"
	"github.com/celler/celler/wal"
)

// mkStore makes a world with two caches, shared chunks, a pin, a destroyed cache, and
// packs that were moved.
func mkStore(t testing.TB) (*world, *node) {
	t.Helper()
	w := mkWorld(t)
	n := w.mkNode()
	n.create("a")
	n.create("b")
	n.create("gone")
	n.push("gone", "old")
	n.push("a", "x", "one", "two")
	n.push("a", "y: x", "two", "three")
	n.push("b", "x", "one", "two")
	n.push("b", "z: nothing", "four", "dead", "five")
	n.push("a", "later", "dead", "dead2", "dead3", "six")
	n.push("b", "w", "six")
	if _, err := n.cat.SetPin(t.Context(), catalog.PinChange{Cache: "a", Name: "main", StorePath: mkPath("y"), By: "me"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.cat.DestroyCache(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	return w, n
}

// collect does a round of collection that removes and rewrites whatever it can.
func (n *node) collect() gc.Report {
	n.t.Helper()
	n.w.pass(90 * 24 * time.Hour)
	c := gc.New(n.cat, n.chunks, gc.Options{RewriteAbove: 0.001})
	rep, err := c.Round(n.t.Context(), gc.Mode{})
	if err != nil {
		n.t.Fatal(err)
	}
	return rep
}

// TestSound checks stores in which nothing is wrong, at each step of their lives.
func TestSound(t *testing.T) {
	w, n := mkStore(t)
	n.wantKinds(fsck.Mode{}, "")
	n.wantKinds(everything(), "")
	if _, err := n.cat.Withdraw(t.Context(), "a", part("later")); err != nil {
		t.Fatal(err)
	}
	moved := 0
	for range 4 {
		moved += n.collect().Rewritten
		n.wantKinds(everything(), "")
	}
	if moved == 0 {
		t.Error("no pack was moved: the test shows less than it should")
	}
	if _, err := compact.New(w.bucket, compact.Options{KeepSegments: -1, LogRetention: -1}).Round(t.Context(), compact.Mode{}); err != nil {
		t.Fatal(err)
	}
	o := n.wantKinds(everything(), "")
	if o.rep.Tables == 0 || o.rep.ReadTables != o.rep.Tables || o.rep.Objects == 0 || o.rep.Read != o.rep.Objects || o.rep.Paths != 5 || o.rep.References != 1 {
		t.Errorf("it looked at %+v", o.rep)
	}
	n.wantKinds(fsck.Mode{Objects: true, Repair: true}, "")
	n.wantPaths("a", "x y")
	n.wantPaths("b", "w x z")
	other := w.mkNode() // from the tables
	other.wantKinds(everything(), "")
}

// TestEmpty checks a store in which there is nothing.
func TestEmpty(t *testing.T) {
	mkWorld(t).mkNode().wantKinds(fsck.Mode{Objects: true, Read: fsck.Read{All: true}, Repair: true}, "")
}

// TestIndexDamage spoils one row after another and wants it to be found and, where
// nothing else is needed for that, put right.
func TestIndexDamage(t *testing.T) {
	set := func(key, value []byte) wal.Entry { return wal.Entry{Kind: wal.Set, Key: key, Value: value} }
	drop := func(key []byte) wal.Entry { return wal.Entry{Kind: wal.Delete, Key: key} }
	for what, c := range map[string]struct {
		spoil     func(n *node) []wal.Entry
		found     string
		withdrawn string // by a repair
		left      bool   // something is, after a repair
	}{
		"no recipe": {
			spoil: func(n *node) []wal.Entry { return []wal.Entry{drop(n.recipeKey("x"))} },
			found: "path", withdrawn: "a:x b:x",
		},
		"a recipe that is cut short": {
			spoil: func(n *node) []wal.Entry {
				value := n.row(n.recipeKey("x"))
				return []wal.Entry{set(n.recipeKey("x"), value[:len(value)-3])}
			},
			found: "path recipe", withdrawn: "a:x b:x",
		},
		"a recipe of a later celler": {
			spoil: func(n *node) []wal.Entry {
				value := n.row(n.recipeKey("x"))
				value[0] = 99
				return []wal.Entry{set(n.recipeKey("x"), value)}
			},
			found: "path recipe row", left: true,
		},
		"a path of another size": {
			spoil: func(n *node) []wal.Entry {
				key := keyspace.AppendPathKey(nil, 1, part("y"))
				p, err := keyspace.DecodePath(key, n.row(key))
				if err != nil {
					n.t.Fatal(err)
				}
				p.FileSize++
				return []wal.Entry{set(key, keyspace.AppendPath(nil, &p))}
			},
			found: "count path", withdrawn: "a:y",
		},
		"no pack": {
			spoil: func(n *node) []wal.Entry { return []wal.Entry{drop(keyspace.AppendPackKey(nil, n.packOf("a", "y")))} },
			found: "count path recipe", withdrawn: "a:y",
		},
		"a dead chunk": {
			spoil: func(n *node) []wal.Entry {
				p := n.recipeOf("z").Runs[0]
				size := int64(n.layout(p.Pack).Sizes[p.First])
				return []wal.Entry{set(keyspace.AppendCondemnedKey(nil, p.Pack), keyspace.AppendCondemned(nil, &keyspace.Condemned{Pack: p.Pack, Bytes: size, Ranges: []keyspace.Range{{First: p.First, Count: 1}}}))}
			},
			found: "count path recipe", withdrawn: "b:z",
		},
		"dead bytes that are none": {
			spoil: func(n *node) []wal.Entry {
				id := n.packOf("a", "later")
				return []wal.Entry{set(keyspace.AppendCondemnedKey(nil, id), keyspace.AppendCondemned(nil, &keyspace.Condemned{Pack: id, Bytes: 7, Purge: true}))}
			},
			found: "count pack", left: true,
		},
		"a chunk row that leads nowhere": {
			spoil: func(*node) []wal.Entry {
				return []wal.Entry{n0(chunk.Location{Pack: chunk.PackID{Epoch: 1, Rand: 99}})}
			},
			found: "",
		},
		"a chunk row that leads to another": {
			spoil: func(n *node) []wal.Entry {
				return []wal.Entry{n0(chunk.Location{Pack: n.packOf("a", "y"), Index: 1})}
			},
			found: "chunk",
		},
		"a count": {
			spoil: func(*node) []wal.Entry { return []wal.Entry{drop(keyspace.AppendTotalsKey(nil, 1))} },
			found: "count",
		},
		"a last use": {
			spoil: func(*node) []wal.Entry { return []wal.Entry{drop(keyspace.AppendLastUseKey(nil, 1, part("x")))} },
			found: "count",
		},
		"a row of no type": {
			spoil: func(*node) []wal.Entry { return []wal.Entry{set([]byte{2, 3}, []byte{1})} },
			found: "row", left: true,
		},
	} {
		t.Run(what, func(t *testing.T) {
			_, n := mkStore(t)
			n.commit(c.spoil(n)...)
			o := n.wantKinds(fsck.Mode{}, c.found)
			if what == "a chunk row that leads nowhere" && o.rep.Strays != 1 {
				t.Errorf("%d strays, want 1", o.rep.Strays)
			}
			o = n.check(fsck.Mode{Repair: true})
			if o.err != nil || o.withdrawn() != c.withdrawn || o.rep.Repair.Left > 0 != c.left {
				t.Errorf("repair: withdrew %q, left %d, %v; want %q, something left: %v", o.withdrawn(), o.rep.Repair.Left, o.err, c.withdrawn, c.left)
			}
			if c.left {
				return
			}
			n.wantKinds(everything(), "")
			if o := n.wantKinds(fsck.Mode{Repair: true}, ""); o.rep.Strays != 0 {
				t.Errorf("%d strays are left", o.rep.Strays)
			}
			pushAll(n)
			n.wantPaths("a", "later x y")
			n.wantPaths("b", "w x z")
			n.wantKinds(everything(), "")
		})
	}
}

// n0 is the row of a chunk that nobody has pushed.
func n0(l chunk.Location) wal.Entry {
	return wal.Entry{Kind: wal.Set, Key: keyspace.AppendChunkKey(nil, chunk.Sum([]byte("nobody's"))), Value: keyspace.AppendChunk(nil, l, chunk.Proof{})}
}

func (n *node) recipeOf(name string) chunk.Recipe {
	n.t.Helper()
	for _, cache := range []catalog.CacheName{"a", "b"} {
		if p, err := n.cat.Path(n.t.Context(), cache, part(name)); err == nil {
			r, err := n.cat.Recipe(n.t.Context(), p.NarHash)
			if err != nil {
				n.t.Fatal(err)
			}
			return r
		}
	}
	n.t.Fatalf("no path %s", name)
	return chunk.Recipe{}
}

func (n *node) recipeKey(name string) []byte {
	return keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: n.recipeOf(name).NarHash})
}

func (n *node) row(key []byte) []byte {
	n.t.Helper()
	value, ok, err := n.db.Get(key)
	if !ok || err != nil {
		n.t.Fatal(ok, err)
	}
	return value
}

// TestObjectGone loses the object of a pack. Only a look at the bucket can find that;
// a repair withdraws what needs it, and a push brings it all back.
func TestObjectGone(t *testing.T) {
	w, n := mkStore(t)
	id := n.packOf("a", "y")
	n.collect() // nothing is dead, nothing changes
	w.remove(pack.Key(id))
	n.wantKinds(fsck.Mode{}, "")
	o := n.wantKinds(fsck.Mode{Objects: true}, "object")
	if len(o.findings) != 1 || o.findings[0].Chunks == 0 {
		t.Errorf("found %+v", o.findings)
	}
	o = n.check(fsck.Mode{Objects: true, Repair: true})
	if o.err != nil || o.rep.Repair.Left != 0 || o.rep.Repair.Chunks != o.findings[0].Chunks || o.withdrawn() == "" {
		t.Fatalf("repair: %+v, %v", o.rep.Repair, o.err)
	}
	n.wantKinds(everything(), "")
	n.wantPaths("a", n.names("a"))
	n.wantPaths("b", n.names("b"))
	pushAll(n)
	n.wantKinds(everything(), "")
	n.wantPaths("a", "later x y")
	n.wantPaths("b", "w x z")
	for range 3 {
		n.collect()
		n.wantKinds(everything(), "")
	}
	n.wantPaths("a", "later x y")
}

func pushAll(n *node) {
	n.t.Helper()
	n.push("a", "x", "one", "two")
	n.push("a", "y: x", "two", "three")
	n.push("b", "x", "one", "two")
	n.push("b", "z: nothing", "four", "dead", "five")
	n.push("a", "later", "dead", "dead2", "dead3", "six")
	n.push("b", "w", "six")
}

// TestOtherPush loses an object, and after the repair pushes only something else that
// has the same chunks: it must store them, and what was withdrawn stays so.
func TestOtherPush(t *testing.T) {
	w, n := mkStore(t)
	other := w.mkNode() // whose memory of what is where is from before
	other.push("b", "u", "one", "three")
	for _, key := range w.packs() {
		w.remove(key)
	}
	if o := n.check(fsck.Mode{Objects: true, Repair: true}); o.err != nil || o.withdrawn() != "a:later a:x a:y b:u b:w b:x b:z" {
		t.Fatalf("withdrew %q, %v", o.withdrawn(), o.err)
	}
	n.wantPaths("a", "")
	other.push("b", "new", "one", "two")
	other.wantPaths("b", "new")
	other.push("a", "x", "one", "two")
	n.wantPaths("a", "x")
	n.wantKinds(everything(), "")
}

func (w *world) packs() (keys []blob.Key) {
	w.t.Helper()
	for info, err := range w.bucket.List(w.t.Context(), pack.Prefix, "") {
		if err != nil {
			w.t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// synctestRun runs a test in which waiting takes no time.
func synctestRun(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// TestBytesDamaged spoils bytes of an object, in each of its parts.
func TestBytesDamaged(t *testing.T) {
	for what, c := range map[string]struct {
		spoil   func(l *chunk.Layout) func([]byte) []byte
		listed  string // found by a listing
		found   string // found by reading
		nothing bool   // is lost
	}{
		"a bit of a frame": {
			spoil: func(l *chunk.Layout) func([]byte) []byte { return flip(l.Frames[0].Offset + l.Frames[0].Size/2) },
			found: "bytes",
		},
		"a bit of the footer": {
			spoil: func(l *chunk.Layout) func([]byte) []byte { return flip(l.FooterOffset() + 9) },
			found: "footer", nothing: true,
		},
		"a bit of the trailer": {
			spoil: func(l *chunk.Layout) func([]byte) []byte { return flip(l.Bytes - 1) },
			found: "footer", nothing: true,
		},
		"cut in the middle of a frame": {
			spoil: func(l *chunk.Layout) func([]byte) []byte {
				return func(b []byte) []byte { return b[:l.Frames[1].Offset+5] }
			},
			listed: "object", found: "bytes footer object",
		},
		"a byte too many": {
			spoil:  func(*chunk.Layout) func([]byte) []byte { return func(b []byte) []byte { return append(b, 1) } },
			listed: "object", found: "object", nothing: true,
		},
		"empty": {
			spoil:  func(*chunk.Layout) func([]byte) []byte { return func([]byte) []byte { return nil } },
			listed: "object", found: "bytes footer object",
		},
	} {
		synctestRun(t, what, func(t *testing.T) {
			w, n := mkStore(t)
			id := n.packOf("b", "z")
			l := n.layout(id)
			if len(l.Frames) < 2 {
				t.Fatal("want a pack of some frames")
			}
			w.spoil(id, c.spoil(&l))
			n.wantKinds(fsck.Mode{}, "")
			n.wantKinds(fsck.Mode{Objects: true}, c.listed)
			n.wantKinds(everything(), c.found)
			mode := everything()
			mode.Repair = true
			o := n.check(mode)
			if o.err != nil || (o.withdrawn() == "") != c.nothing {
				t.Errorf("withdrew %q, %v\n%v", o.withdrawn(), o.err, o.findings)
			}
			if o.rep.Repair.Left != 0 {
				t.Errorf("left is %d of %v", o.rep.Repair.Left, o.findings)
			}
			n.wantKinds(everything(), "")
			pushAll(n)
			n.wantPaths("a", "later x y")
			n.wantPaths("b", "w x z")
			n.wantKinds(everything(), "")
		})
	}
}
