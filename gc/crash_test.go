package gc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/compact"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/fsck"
	"github.com/celler/celler/nix"
)

// wantChecked wants a check that reads all there is to find nothing.
func (n *node) wantChecked() {
	n.t.Helper()
	rep, err := fsck.New(n.cat, n.chunks, fsck.Options{Log: n.w.bucket}).Check(n.t.Context(), fsck.Mode{
		Read: fsck.Read{All: true},
		Each: func(f fsck.Finding) error { n.t.Errorf("check: %s: %s: %s", f.Kind, f.What, f.Problem); return nil },
	})
	if err != nil || rep.Strays > 0 || rep.Read == 0 {
		n.t.Errorf("check: %d objects read, %d chunk rows lead nowhere: %v", rep.Read, rep.Strays, err)
	}
}

// play lets a process do something and kills it at its n-th call from then on. It returns
// that call, or "" if the process came to its end.
func (w *world) play(t *testing.T, n int, after bool, do func(ctx context.Context, n *node) error) (name string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d := &door{b: w.bucket, n: -1, after: after, hook: func(call string) bool { name = call; cancel(); return true }}
	victim, err := w.openNode(t, d)
	if err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.n = d.calls + n
	d.mu.Unlock()
	if err := do(ctx, victim); err != nil && name == "" {
		t.Errorf("nobody was killed: %v", err)
	}
	victim.close()
	return name
}

// killedAtEach plays a scene once for each call, killed before it and after it, and then
// check on a server that begins with nothing.
func killedAtEach(t *testing.T, scene *world, do func(ctx context.Context, n *node) error, check func(fresh *node), want ...string) {
	t.Helper()
	for _, after := range []bool{false, true} {
		t.Run(map[bool]string{false: "before", true: "after"}[after], func(t *testing.T) {
			seen := map[string]int{}
			step := 1
			if testing.Short() {
				step = 9
			}
			for n, name := 1, "none"; name != ""; n += step {
				t.Run(fmt.Sprint(n), func(t *testing.T) {
					w := scene.copy(t)
					name = w.play(t, n, after, do)
					fresh := w.mkNode(t)
					fresh.wantSound()
					fresh.wantChecked()
					check(fresh)
				})
				if name != "" {
					seen[name]++
				}
			}
			t.Log(seen)
			for _, call := range want {
				if seen[call] == 0 && step == 1 {
					t.Errorf("nobody was killed at %q: %v", call, seen)
				}
			}
		})
	}
}

// TestDeletionKilledAnywhere kills somebody who deletes a secret and sees to it himself. Its
// bytes must be gone once somebody else has done the same.
func TestDeletionKilledAnywhere(t *testing.T) {
	scene := mkScene(t)
	erase := func(ctx context.Context, n *node) error {
		c := n.scene()
		if _, err := c.Delete(ctx, gc.DeleteRequest{Cache: "main", Paths: []nix.HashPart{part("k2")}, Now: true}); err != nil {
			return err
		}
		_, err := c.Round(ctx, gc.Mode{})
		return err
	}
	killedAtEach(t, scene, erase, func(n *node) {
		if names := n.names("main"); !strings.Contains(names, "k0 k1") {
			n.t.Errorf("paths are gone that nobody deleted: %s", names)
		}
		if err := erase(n.t.Context(), n); err != nil && !strings.Contains(err.Error(), catalog.ErrNoPath.Error()) {
			n.t.Error(err)
		}
		c := n.scene()
		for range 4 {
			n.w.pass(day + time.Minute)
			n.use("main", "k0", "k1")
			n.mustRound(c)
		}
		if n.w.holds("k2") {
			n.t.Error("what was deleted is still in the bucket")
		}
		for _, name := range []string{"k0", "k1"} {
			if err := n.readBack("main", name); err != nil {
				n.t.Error(err)
			}
		}
		n.wantChecked()
	}, "create log/", "delete pack/", "put pack/")
}

// TestCompactionKilledAnywhere kills a compactor on a store in which there is something to
// collect. A server that begins with nothing has the same paths, and the next round leaves
// no more behind than one that was not killed.
func TestCompactionKilledAnywhere(t *testing.T) {
	scene := mkScene(t)
	o := compact.Options{By: "test", FlushSegments: 20, Ratio: 2, KeepSegments: -1, LogRetention: -1, KeepAll: -1, KeepHourly: -1, KeepDaily: -1, StealAfter: time.Nanosecond}
	n := scene.mkNode(t)
	for range 2 { // something to merge, and to throw away
		for range 12 {
			n.use("main", "k0", "k1")
			n.push("main", "k1: k0", "k1", "shared-b", "bx")
		}
		if _, err := compact.New(scene.bucket, o).Round(t.Context(), compact.Mode{Steal: true}); err != nil {
			t.Fatal(err)
		}
	}
	for range 24 {
		n.push("main", "k2: k1 k0", "k2", "shared-c", "cx")
	}
	names := n.names("main")
	n.close()
	killedAtEach(t, scene, func(ctx context.Context, n *node) error {
		_, err := compact.New(n.bucket, o).Round(ctx, compact.Mode{Steal: true})
		return err
	}, func(n *node) {
		if got := n.names("main"); got != names {
			n.t.Errorf("paths %q, want %q", got, names)
		}
		if _, err := compact.New(n.w.bucket, o).Round(n.t.Context(), compact.Mode{Steal: true}); err != nil {
			n.t.Error(err)
		}
		next := n.w.mkNode(n.t)
		next.wantSound()
		next.wantChecked()
		if snaps := n.w.objects("snap/"); len(snaps) != 1 {
			n.t.Errorf("snapshots are left: %v", snaps)
		}
	}, "put tab/", "put snap/", "swap ROOT", "delete log/", "delete snap/", "delete tab/")
}

// TestRestoreKilledAnywhere kills somebody who restores a cache aside. It is as it was or
// as it was to be, and what was put together in vain is swept.
func TestRestoreKilledAnywhere(t *testing.T) {
	scene := mkScene(t)
	n := scene.mkNode(t)
	o := compact.Options{By: "test", FlushSegments: 1, KeepSegments: -1, LogRetention: -1, StealAfter: time.Nanosecond}
	if _, err := compact.New(scene.bucket, o).Round(t.Context(), compact.Mode{Steal: true}); err != nil {
		t.Fatal(err)
	}
	then, seq := n.names("main"), n.log.Seq()
	if _, err := n.cat.Withdraw(t.Context(), "main", part("k1")); err != nil {
		t.Fatal(err)
	}
	n.push("main", "late", "late")
	now := n.names("main")
	n.close()
	past, err := index.OpenPast(t.Context(), scene.bucket, "past", seq, index.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := past.Close(); err != nil {
			t.Error(err)
		}
	}()
	restore := func(ctx context.Context, n *node) error { return restoreAside(ctx, n, past.DB) }
	killedAtEach(t, scene, restore, func(n *node) {
		if got := n.names("main"); got != then && got != now {
			n.t.Errorf("paths %q, want %q or %q", got, then, now)
		}
		c := n.scene()
		for range 8 {
			n.w.pass(day + time.Minute)
			n.use("main", "k0", "k1", "k2")
			n.mustRound(c)
		}
		s, err := n.cat.Snapshot(n.t.Context())
		if err != nil {
			n.t.Fatal(err)
		}
		left, err := s.Destroyed()
		if err != nil || len(left) != 0 {
			n.t.Errorf("left of what was put together: %v, %v", left, err)
		}
		if err := s.Close(); err != nil {
			n.t.Error(err)
		}
		n.wantSound()
		n.wantChecked()
	}, "create log/")
}

func restoreAside(ctx context.Context, n *node, past *index.DB) error {
	s, err := catalog.SnapshotOf(past)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	was, _, err := s.Cache("main")
	if err != nil {
		return err
	}
	is, err := n.cat.Cache(ctx, "main")
	if err != nil {
		return err
	}
	b, err := n.cat.BeginRebuild(ctx, was)
	if err != nil {
		return err
	}
	for p, err := range s.Paths(was.ID) {
		if err != nil {
			return err
		}
		if _, err := b.AddPaths(ctx, []catalog.Path{p}); err != nil {
			return err
		}
	}
	if _, err := n.cat.Restore(ctx, []catalog.CacheRestore{{Name: "main", Now: &is, Then: &was, Aside: b}}); err != nil {
		return err
	}
	return n.cat.Sweep(ctx)
}
