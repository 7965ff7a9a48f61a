package recovery_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/recovery"
	"github.com/celler/celler/wal"
)

// denier refuses some operations, as buckets do whose objects are locked.
type denier struct {
	blob.Bucket
	writes, deletes bool
}

func (d *denier) refuse(op string, key blob.Key) error {
	return &blob.Error{Op: op, Bucket: "locked", Key: key, Kind: blob.KindDenied, Err: errors.New("access denied")}
}

func (d *denier) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if d.writes {
		return "", d.refuse("create", key)
	}
	return d.Bucket.Create(ctx, key, body)
}

func (d *denier) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if d.writes {
		return "", d.refuse("put", key)
	}
	return d.Bucket.Put(ctx, key, body)
}

func (d *denier) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	if d.writes {
		return "", d.refuse("swap", key)
	}
	return d.Bucket.Swap(ctx, key, old, body)
}

func (d *denier) Delete(ctx context.Context, keys ...blob.Key) error {
	if d.deletes {
		return d.refuse("delete", keys[0])
	}
	return d.Bucket.Delete(ctx, keys...)
}

// A bucket that denies deletion is recovered all the same; one that denies writes is
// left as it is, and that is said.
func TestDenied(t *testing.T) {
	for _, h := range harms() {
		if h.paths == "" {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			w := mkStore(t, h.keep)
			h.do(w)
			plain, before := w.bucket, w.keys("")
			w.bucket = &denier{Bucket: plain, writes: true}
			_, err := w.examine(h.o).Execute(t.Context())
			if blob.KindOf(err) != blob.KindDenied {
				t.Errorf("writes are denied: %v", err)
			}
			if now := w.keys(""); !slices.Equal(now, before) {
				t.Errorf("objects came or went: %v, before %v", now, before)
			}
			w.bucket = &denier{Bucket: plain, deletes: true}
			if _, err := w.examine(h.o).Execute(t.Context()); err != nil {
				t.Errorf("deletion is denied: %v", err)
			}
			if got := w.served(); got != h.paths {
				t.Errorf("a server has %q, want %q", got, h.paths)
			}
		})
	}
}

// The packs are in another bucket than the log.
func TestTwoBuckets(t *testing.T) {
	for _, h := range harms() {
		if h.paths == "" || h.name == "packs alone" {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			w := found(t, memblob.New(), memblob.New())
			w.fill(h.keep)
			h.do(w)
			w.recover(h.o)
			if got := w.served(); got != h.paths {
				t.Errorf("a server has %q, want %q", got, h.paths)
			}
			if packs := w.keys("pack/"); len(packs) > 0 {
				t.Errorf("%v in the bucket of the log", packs)
			}
		})
	}
	t.Run("the bucket of the log is lost", func(t *testing.T) {
		w := found(t, memblob.New(), memblob.New())
		w.fill(false)
		w.bucket = memblob.New()
		_, res := w.recover(recovery.Options{Profile: profile})
		if res.Packs == 0 || !res.Check {
			t.Errorf("result %+v, want packs adopted", res)
		}
		w.with(func(n *node) {
			n.create("ci")
			if stored := n.push(strings.Fields(all)...); stored > 0 {
				t.Errorf("%d packs were stored again", stored)
			}
		})
		if got := w.served(); got != all {
			t.Errorf("a server has %q after pushing again", got)
		}
	})
}

// interposed lets somebody act just before ROOT is written.
type interposed struct {
	blob.Bucket
	act func()
}

func (b *interposed) before(key blob.Key) {
	if act := b.act; key == wal.RootKey && act != nil {
		b.act = nil
		act()
	}
}

func (b *interposed) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	b.before(key)
	return b.Bucket.Swap(ctx, key, old, body)
}

// A server that runs on while slots are given up: what it is told to have committed up
// to the last moment is reported as lost, kept as evidence, and gone from its own state;
// then it goes on with what everybody has.
func TestOvertaken(t *testing.T) {
	w := mkStore(t, false)
	running := w.mustOpen(vfs.NewMem())
	defer running.close()
	last := running.log.Seq()
	w.remove((last - 1).Key()) // which it does not notice
	plain := w.bucket
	w.bucket = &interposed{Bucket: plain, act: func() { running.push("late") }}
	p := w.examine(recovery.Options{})
	res, err := p.Execute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.bucket = plain
	// It opened its session, and then published.
	if want := []string{string((last + 1).Key()), string((last + 2).Key())}; !slices.Equal(res.Overtaken, want) {
		t.Errorf("overtaken %v, want %v", res.Overtaken, want)
	}
	if w.get(blob.Key(p.Evidence)+(last+1).Key()) != w.get((last + 1).Key()) {
		t.Error("the slot that was overtaken is not among the evidence")
	}
	// The first it asks for afterwards is refused, since its session is lost as well.
	if _, err := running.cat.CreateCache(t.Context(), catalog.Cache{Name: "fenced"}); !errors.Is(err, wal.ErrUnknown) {
		t.Errorf("the first commit of a server that was overtaken: %v", err)
	}
	running.push("g")
	if got := running.paths(); got != "a b c d g" {
		t.Errorf("the server that ran on has %q", got)
	}
	if got := w.served(); got != "a b c d g" {
		t.Errorf("others have %q", got)
	}

	// One that wrote before that is noticed in time.
	w = mkStore(t, false)
	other := w.mustOpen(vfs.NewMem())
	defer other.close()
	w.remove((other.log.Seq() - 1).Key())
	p = w.examine(recovery.Options{})
	other.push("early")
	root := w.get(wal.RootKey)
	var changed *recovery.ChangedError
	if _, err := p.Execute(t.Context()); !errors.As(err, &changed) {
		t.Errorf("executed although somebody wrote: %v", err)
	}
	if w.get(wal.RootKey) != root {
		t.Error("ROOT was written")
	}
}

// If nothing is lost, a server that runs on is not fenced: its commits count before and
// after.
func TestRunningNothingLost(t *testing.T) {
	w := mkStore(t, true)
	running := w.mustOpen(vfs.NewMem())
	defer running.close()
	w.remove(wal.RootKey)
	p := w.examine(recovery.Options{})
	if _, err := p.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	running.push("g")
	for _, got := range []string{running.paths(), w.served()} {
		if got != all+" g" {
			t.Errorf("paths %q", got)
		}
	}
}

// What servers have seen counts, although the bucket shows nothing of it.
func TestSeen(t *testing.T) {
	w := mkStore(t, false)
	fs := vfs.NewMem()
	n := w.mustOpen(fs)
	last := n.log.Seq()
	n.close()
	w.remove(last.Key())
	if n, err := w.open(fs); !errors.Is(err, wal.ErrRolledBack) {
		n.close()
		t.Fatalf("a server that had more: %v", err)
	}
	if p := w.examine(recovery.Options{}); !p.Sound() {
		t.Fatalf("what is not known to be missing is found: %s", text(p))
	}
	p, res := w.recover(recovery.Options{Seen: last})
	if len(p.Losses) == 0 || wal.Seq(res.Next) <= last {
		t.Errorf("plan %s, goes on at %d", text(p), res.Next)
	}
	n = w.mustOpen(fs)
	defer n.close()
	if got := n.paths(); got != "a b c d e" {
		t.Errorf("the server that had more has %q", got)
	}
}

// Nothing is collected before it was counted again, and nothing looks old.
func TestForgets(t *testing.T) {
	w := mkStore(t, false)
	w.with(func(n *node) {
		if _, err := n.cat.Tick(t.Context(), catalog.TickOptions{}); err != nil {
			t.Fatal(err)
		}
		n.push("g", "h")
	})
	w.remove((w.seq() - 1).Key())
	w.recover(recovery.Options{Salvage: true})
	w.with(func(n *node) {
		if _, err := n.cat.BeginMark(t.Context()); !errors.Is(err, catalog.ErrUncounted) {
			t.Errorf("begin mark: %v", err)
		}
		clock, err := n.cat.Clock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ended := clock.Ended(1); !ended.IsZero() {
			t.Errorf("the first day ended at %v, so that what was used then has an age", ended)
		}
		if _, err := n.cat.Recount(t.Context()); err != nil {
			t.Fatal(err)
		}
		mark, err := n.cat.BeginMark(t.Context())
		if err != nil {
			t.Fatalf("begin mark: %v", err)
		}
		if err := mark.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Packs were moved in slots that are lost, and their first objects are deleted: they are
// found where they were moved to.
func TestMoved(t *testing.T) {
	for _, keepOld := range []bool{false, true} {
		w := mkStore(t, false)
		w.with(func(n *node) {
			var jobs []chunkstore.RewriteJob
			s, err := n.cat.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var old []blob.Key
			for p, err := range s.Packs() {
				if err != nil {
					t.Fatal(err)
				}
				jobs = append(jobs, chunkstore.RewriteJob{Layout: p.Layout})
				old = append(old, blob.Key("pack/"+p.Layout.ID.String()))
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			res, err := n.chunks.Rewrite(t.Context(), jobs)
			if err != nil || len(res.Objects) == 0 {
				t.Fatalf("rewrite: %+v, %v", res, err)
			}
			if !keepOld {
				w.remove(old...)
			}
			// The slots that moved them are lost before anybody saw them.
		})
		w.remove(w.seqOf().Key())
		w.recover(recovery.Options{Seen: 100})
		if got := w.served(); got != "a b c d e" {
			t.Errorf("old objects kept %v: a server has %q", keepOld, got)
		}
	}
}

// seqOf is the last slot that is listed.
func (w *world) seqOf() wal.Seq {
	keys := w.keys("log/")
	seq, err := wal.ParseSeq(strings.TrimPrefix(string(keys[len(keys)-1]), "log/"))
	if err != nil {
		w.t.Fatal(err)
	}
	return seq
}

// A compactor wrote a snapshot and died before ROOT named it; then the one that ROOT
// names is lost. The other is as good, but ROOT has to name it.
func TestOrphan(t *testing.T) {
	w := mkStore(t, true)
	_, named := w.snapshots()
	root := w.get(wal.RootKey)
	w.compact(true)
	if _, err := w.bucket.Put(t.Context(), wal.RootKey, []byte(root)); err != nil {
		t.Fatal(err)
	}
	w.remove(named)
	if p, _ := w.recover(recovery.Options{}); !slices.Equal(p.Write, []string{"ROOT"}) {
		t.Errorf("plan %s", text(p))
	}
	if got := w.served(); got != all {
		t.Errorf("a server has %q", got)
	}
	w.wantUsable(false)
}
