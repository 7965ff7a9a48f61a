package client

import (
	"fmt"
	"testing"

	"github.com/celler/celler/nix"
	"pgregory.net/rapid"
)

// drawPaths makes a random closure, references first, self references included.
func drawPaths(t *rapid.T) []path {
	n := rapid.IntRange(1, 40).Draw(t, "paths")
	var paths []path
	for i := range n {
		p := path{storePath: mkPath(fmt.Sprintf("p%d", i)), narSize: rapid.Int64Range(0, 1<<20).Draw(t, "size")}
		for j := range i {
			if rapid.IntRange(0, 4).Draw(t, "refers") == 0 {
				p.references = append(p.references, paths[j].storePath)
			}
		}
		if rapid.Bool().Draw(t, "self") {
			p.references = append(p.references, p.storePath)
		}
		p.references = append(p.references, mkPath("elsewhere"))
		paths = append(paths, p)
	}
	return paths
}

func TestScheduleReferencesFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		paths := drawPaths(t)
		s := newSchedule(paths)
		state := map[nix.StorePath]string{}
		var running []*item
		for s.left > 0 {
			if it := s.peek(); it != nil && rapid.Bool().Draw(t, "start") {
				s.start()
				for _, ref := range it.path.references {
					if ref != it.path.storePath && ref != mkPath("elsewhere") && state[ref] != "done" {
						t.Fatalf("%v started while its reference %v is %q", it.path.storePath, ref, state[ref])
					}
				}
				state[it.path.storePath] = "running"
				running = append(running, it)
				continue
			}
			if len(running) == 0 {
				if s.peek() == nil {
					t.Fatalf("nothing runs, nothing may start, %d left", s.left)
				}
				continue
			}
			i := rapid.IntRange(0, len(running)-1).Draw(t, "ends")
			it := running[i]
			running = append(running[:i], running[i+1:]...)
			if rapid.IntRange(0, 5).Draw(t, "fails") > 0 {
				state[it.path.storePath] = "done"
				s.done(it)
				continue
			}
			state[it.path.storePath] = "failed"
			for _, skipped := range s.failed(it) {
				if state[skipped.path.storePath] != "" {
					t.Fatalf("%v was skipped but is %s", skipped.path.storePath, state[skipped.path.storePath])
				}
				state[skipped.path.storePath] = "skipped"
			}
		}
		for _, p := range paths {
			bad := false
			for _, ref := range p.references {
				bad = bad || ref != p.storePath && (state[ref] == "failed" || state[ref] == "skipped")
			}
			if got := state[p.storePath]; got == "" || (got == "skipped") != bad {
				t.Fatalf("%v is %q; a reference of it was not pushed: %v", p.storePath, got, bad)
			}
		}
	})
}

// TestScheduleLongestFirst: what holds up most starts first.
func TestScheduleLongestFirst(t *testing.T) {
	small, large := mkPath("small"), mkPath("large")
	s := newSchedule([]path{
		{storePath: mkPath("alone"), narSize: 10 << 20},
		{storePath: small, narSize: 10},
		{storePath: large, narSize: 100 << 20, references: []nix.StorePath{small}},
	})
	if got := s.start().path.storePath; got != small {
		t.Errorf("started %v, want %v, for which 100 MiB are waiting", got, small)
	}
}
