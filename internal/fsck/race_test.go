package fsck_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/fsck"
)

// TestRace checks a store again and again while it is pushed to, paths are removed, and
// a collector that waits for nobody deletes and rewrites what it can. Nothing is ever wrong.
func TestRace(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode()
	n.create("a")
	for i := range 6 {
		n.push("a", fmt.Sprint("p", i), fmt.Sprint("part", i), fmt.Sprint("part", i+1))
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	begin := func(what func(n *node, i int) error) {
		n := w.mkNode()
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := what(n, i); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	begin(func(n *node, i int) error {
		name := fmt.Sprint("p", i%12)
		if i%3 == 2 {
			_, err := n.cat.Withdraw(ctx, "a", part(name))
			if errors.Is(err, catalog.ErrNoPath) {
				err = nil
			}
			return err
		}
		err := n.tryPush(ctx, "a", name, fmt.Sprint("part", i%9), fmt.Sprint("part", i%7))
		if errors.Is(err, catalog.ErrChunksMissing) {
			err = nil // days go by faster than it can push
		}
		return err
	})
	deleted, rewritten := 0, 0
	begin(func(n *node, _ int) error {
		w.pass(25 * time.Hour)
		rep, err := gc.New(n.cat, n.chunks, gc.Options{NarGrace: -1, ReaderGrace: -1, RewriteAbove: 0.01}).Round(ctx, gc.Mode{})
		deleted += rep.Deleted
		rewritten += rep.Rewritten
		if errors.Is(err, catalog.ErrFenced) {
			err = nil
		}
		return err
	})
	checker := w.mkNode()
	for range 30 {
		for _, mode := range []fsck.Mode{{}, {Objects: true}, everything(), {Objects: true, Repair: true}} {
			checker.wantKinds(mode, "")
		}
		if t.Failed() {
			break
		}
	}
	stop()
	wg.Wait()
	if deleted == 0 || rewritten == 0 {
		t.Errorf("%d objects were deleted and %d packs rewritten meanwhile: the test shows nothing", deleted, rewritten)
	}
	n.wantKinds(everything(), "")
}

// TestRaceRepair repairs a store that has lost packs while it is pushed to. In the end all
// that was pushed again is there.
func TestRaceRepair(t *testing.T) {
	w, n := mkStore(t)
	for _, key := range w.packs()[1:] {
		w.remove(key)
	}
	pusher := w.mkNode()
	done := make(chan error)
	go func() {
		var err error
		for i := 0; i < 20 && err == nil; i++ {
			err = pusher.tryPush(t.Context(), "a", fmt.Sprint("q", i), fmt.Sprint("new", i), "two", "three")
		}
		done <- err
	}()
	repair := everything()
	repair.Repair = true
	o := n.check(repair)
	if err := <-done; err != nil || o.err != nil {
		t.Fatal(err, o.err)
	}
	// What was pushed before the damage was known may refer to it.
	if o = n.check(repair); o.err != nil || o.rep.Repair.Left > 0 {
		t.Errorf("the second repair: %+v, %v", o.rep.Repair, o.err)
	}
	n.wantKinds(everything(), "")
	n.wantPaths("a", n.names("a"))
	pushAll(n)
	for i := range 20 {
		n.push("a", fmt.Sprint("q", i), fmt.Sprint("new", i), "two", "three")
	}
	n.wantPaths("a", n.names("a"))
	n.wantKinds(everything(), "")
}
