//go:build soak

package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// last returns after the span, or later if something has yet to happen: on a busy machine
// a minute may be too short for all of it. After three spans it has not happened.
func (s *soak) last(ctx context.Context, span time.Duration) {
	pause(ctx, span)
	for deadline := time.Now().Add(2 * span); time.Now().Before(deadline) && len(s.unseen(span)) > 0; {
		pause(ctx, 200*time.Millisecond)
	}
}

// finish stops everything and looks at what is left in the bucket.
func (s *soak) finish(t *testing.T) {
	t.Helper()
	for _, server := range s.store.servers {
		if err := server.end(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		for _, d := range server.deaths {
			t.Errorf("%s ended by itself: %s", server.name, d)
		}
		if lines := server.logged("panic:", "fatal error:", "forked", "rolled back"); len(lines) > 0 {
			t.Errorf("%s logged:\n%s", server.name, lines[0])
		}
	}
	if _, err := s.run(t.Context(), 0, "compact", "--steal", "--bucket", bucketAt(s.s3), "--compact.log-retention=0s", "--compact.keep-segments=0"); err != nil {
		t.Error(err)
	}
	last := &soakServer{rig: s.soakRig, name: "last", addr: soakAddr(t), local: filepath.Join(s.dir, "last")}
	t.Cleanup(func() { last.end(syscall.SIGKILL) })
	if err := last.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	live, err := s.store.readAll(last)
	if err != nil {
		t.Error(err)
	}
	s.add("paths live at the end", live)
	s.keeper.readPinned(last)
	// What is collected now is collected with nobody in the way.
	for range 3 {
		args := s.collectArgs("last")
		args[slices.Index(args, "--bucket")+1] = bucketAt(s.s3)
		if _, err := s.run(t.Context(), 0, args...); err != nil {
			t.Error(err)
		}
	}
	if again, err := s.store.readAll(last); err != nil || again != live {
		t.Errorf("after a collection %d paths are live, before it were %d: %v", again, live, err)
	}
	s.keeper.readPinned(last)
	s.fsck(t)
	if err := last.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// fsck has the bucket read from end to end.
func (s *soak) fsck(t *testing.T) {
	t.Helper()
	out, err := s.run(t.Context(), 0, "fsck", "--read", "--bucket", bucketAt(s.s3))
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// report judges the histories, prints what happened, and wants everything to have happened.
func (s *soak) report(t *testing.T, span time.Duration) {
	t.Helper()
	began := time.Now()
	ops, unknown := s.store.history.check(t, os.Getenv("CELLER_TEST_SOAK_OUT"))
	s.count["operations"], s.count["operations without an answer"] = ops, unknown
	s.count["NARs compared"] = s.store.nars
	for _, server := range s.store.servers {
		s.count["server starts"] += server.starts
	}
	s.countCuts()
	for _, w := range s.store.wrong {
		t.Error(w)
	}
	t.Logf("%v after the start: %s", s.store.history.now().Round(time.Second), tally(s.count))
	t.Logf("requests that came to nothing: %s", tally(s.store.faults))
	t.Logf("histories of %d paths judged in %v", len(s.store.history.ops), time.Since(began).Round(time.Millisecond))
	for i, stray := range s.strays {
		if i < 5 {
			t.Logf("gave up: %.400s", stray)
		}
	}
	defer func() {
		if t.Failed() {
			t.Logf("what was broken when:\n%s", strings.Join(s.events, "\n"))
		}
	}()
	for _, what := range append(s.unseen(span), "operations", "NARs compared", "paths live at the end") {
		if s.counted(what) == 0 {
			t.Errorf("there were no %s: the test has shown nothing about them", what)
		}
	}
}

// unseen returns what must happen in a run of this span, and has not yet.
func (s *soak) unseen(span time.Duration) (what []string) {
	must := []string{
		"servers killed", "servers stopped across a truncation", "blackouts", "answers cut", "answers lost", "requests cut",
		"compactor rounds", "compactors killed", "compactors stopped", "flushes", "truncations",
		"collector rounds", "collectors killed", "collectors stopped", "NARs removed by collectors", "chunks condemned by collectors", "packs deleted",
		"paths deleted now", "paths pinned", "pins removed", "pinned paths read",
	}
	if span >= soakLong {
		must = append(must, "merges", "paths faded", "packs rewritten by collectors")
	}
	s.countCuts()
	for _, m := range must {
		if s.counted(m) == 0 {
			what = append(what, m)
		}
	}
	return what
}

func (s *soak) countCuts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for how, name := range []string{"answers cut", "answers lost", "requests cut"} {
		s.count[name] = s.tools.counts()[how]
		for _, server := range s.store.servers {
			s.count[name] += server.proxy.counts()[how]
		}
	}
}
