package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/queue"
)

// Hooks run at once, and some of them are killed at any point of their lives: whatever
// was acknowledged is in the queue, and nothing there is half written.
func TestHooksKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	var mu sync.Mutex // guards acked
	acked := map[string]bool{}
	var killed atomic.Int64
	var wg sync.WaitGroup
	turns := make(chan struct{}, 8)
	for i := range 96 {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			path := fmt.Sprintf("/nix/store/%032d-built", i)
			c := exec.CommandContext(t.Context(), "celler", "hook", "ci", "--queue", dir)
			c.Env = append(c.Environ(), "OUT_PATHS="+path, "DRV_PATH=", "XDG_CONFIG_HOME=", "XDG_DATA_HOME=", "XDG_CACHE_HOME=")
			if err := c.Start(); err != nil {
				t.Error(err)
				return
			}
			if i%2 == 1 { // from before main to after the end
				kill := time.AfterFunc(time.Duration(i)*time.Millisecond, func() { _ = c.Process.Kill() })
				defer kill.Stop()
			}
			err := c.Wait()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok && !exit.Exited() {
				killed.Add(1)
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			acked[path] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	q, err := queue.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := q.IDs()
	if err != nil {
		t.Fatal(err)
	}
	n := len(acked)
	for _, id := range ids {
		e, err := q.Read(id)
		if err != nil {
			t.Error(err)
			continue
		}
		delete(acked, e.Paths[0].String())
	}
	for path := range acked {
		t.Errorf("%s was acknowledged and is not in the queue", path)
	}
	t.Logf("%d hooks acknowledged, %d killed, %d entries", n, killed.Load(), len(ids))
	if n < 48 || killed.Load() == 0 {
		t.Errorf("%d hooks were acknowledged and %d killed: expected at least 48, and some", n, killed.Load())
	}
}

// A build with more outputs than an entry has room for is no reason for Nix to stop.
func TestHookOfManyPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	const n = 10_000
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "/nix/store/%032d-%s ", i, strings.Repeat("x", 200))
	}
	a := &app{env: config.NewEnv(map[string]string{"OUT_PATHS": b.String()}), now: time.Now}
	c := &hookCmd{queueFlag: queueFlag{dir}}
	if err := c.Run(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	q, err := queue.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := q.IDs()
	if err != nil {
		t.Fatal(err)
	}
	queued := 0
	for _, id := range ids {
		e, err := q.Read(id)
		if err != nil {
			t.Fatal(err)
		}
		queued += len(e.Paths)
	}
	if queued != n {
		t.Errorf("%d paths are queued, want %d", queued, n)
	}
}
