package main

import (
	"math"
	"os"
	"reflect"
	"runtime/debug"
	"testing"
	"time"

	"github.com/celler/celler/internal/config"
)

// TestClientMemory: what pushes limits its memory, whether by itself or as an agent.
func TestClientMemory(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	limits := func(what string, do func()) {
		t.Helper()
		debug.SetMemoryLimit(math.MaxInt64)
		do()
		if n := debug.SetMemoryLimit(-1); n != clientMemory {
			t.Errorf("%s: the limit is %d bytes, want %d", what, n, clientMemory)
		}
	}
	_, url := mustAPI(t, nil)
	t.Setenv("NIX_REMOTE", "unix:///nonexistent")
	limits("push", func() { command("", "push", url+"/ci", "/nix/store/"+hashPart+"-hello") })
	limits("agent", func() {
		if _, err := agentOptions(&app{stderr: os.Stderr}, nil, logFlags{"info", "text"}); err != nil {
			t.Error(err)
		}
	})
	debug.SetMemoryLimit(1 << 30) // GOMEMLIMIT
	command("", "push", url+"/ci", "/nix/store/"+hashPart+"-hello")
	if n := debug.SetMemoryLimit(-1); n != 1<<30 {
		t.Errorf("the limit that was set is %d bytes now", n)
	}
}

// TestAgentMemory: the caches of an agent share what it has in hand.
func TestAgentMemory(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	t.Setenv("HOME", t.TempDir())
	o, err := agentOptions(&app{stderr: os.Stderr, env: config.NewEnv(nil), now: time.Now}, nil, logFlags{"info", "text"})
	if err != nil {
		t.Fatal(err)
	}
	var seen []uintptr
	for _, reference := range []string{"http://one.test/ci", "http://two.test/ci"} {
		p, _, err := o.Dial(reference)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		seen = append(seen, reflect.ValueOf(p).Elem().FieldByName("memory").Pointer())
	}
	if seen[0] == 0 || seen[0] != seen[1] {
		t.Errorf("memories %x, want the same", seen)
	}
}
