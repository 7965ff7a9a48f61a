//go:build soak

package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What a client did or saw. Each store path is a register that holds the version of
// its NAR, or nothing.
type soakVerb string

const (
	didPush   soakVerb = "push"   // sets the version
	didRemove soakVerb = "remove" // wants some version and takes it away
	sawNone   soakVerb = "none"   // there was no such path: narinfo, delete or get-missing-paths said so
	sawSome   soakVerb = "some"   // there was such a path, of whatever version
	saw       soakVerb = "saw"    // narinfo: this version
)

// soakOp is one operation of a history.
type soakOp struct {
	client    int
	verb      soakVerb
	path      string
	version   string
	call, ret time.Duration // since the start
	unknown   bool          // of a change: it may have happened, or may yet
}

func (o soakOp) String() string {
	ret := o.ret.Round(time.Millisecond).String()
	if o.unknown {
		ret = "?"
	}
	return fmt.Sprintf("%v..%s client %d: %s %s", o.call.Round(time.Millisecond), ret, o.client, o.verb, o.version)
}

// soakHistory is what all clients did and saw.
type soakHistory struct {
	start time.Time
	mu    sync.Mutex // guards below
	ops   map[string][]soakOp
	lost  map[string]int // changes without an answer
	turns map[string]int
}

func newSoakHistory() *soakHistory {
	return &soakHistory{start: time.Now(), ops: map[string][]soakOp{}, lost: map[string]int{}, turns: map[string]int{}}
}

const (
	// soakPathOps and soakPathLost bound the history of one path: each change without an
	// answer doubles the orders that have to be looked at.
	soakPathOps  = 200
	soakPathLost = 8
)

// turn returns the path to fight over in a place: another one once the history of the
// last is as long as can be judged.
func (h *soakHistory) turn(place string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ; ; h.turns[place]++ {
		path := fmt.Sprintf("%s-%d", place, h.turns[place])
		if len(h.ops[path]) < soakPathOps && h.lost[path] < soakPathLost {
			return path
		}
	}
}

func (h *soakHistory) now() time.Duration { return time.Since(h.start) }

func (h *soakHistory) add(o soakOp) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops[o.path] = append(h.ops[o.path], o)
	if o.unknown {
		h.lost[o.path]++
	}
}

func (h *soakHistory) paths() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for p := range h.ops {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// soakModel is a register that begins empty. When an operation took effect is for
// porcupine to find, between its call and its return.
var soakModel = porcupine.Model{ //nolint:gochecknoglobals // a constant
	Init: func() any { return "" },
	Step: func(state, in, _ any) (bool, any) {
		s, o := state.(string), in.(soakOp)
		switch o.verb {
		case didPush:
			return true, o.version
		case didRemove:
			return s != "" || o.unknown, ""
		case sawNone:
			return s == "", s
		case sawSome:
			return s != "", s
		case saw:
			return s == o.version, s
		}
		return false, s
	},
	DescribeOperation: func(in, _ any) string { return in.(soakOp).String() },
	DescribeState:     func(s any) string { return s.(string) },
}

// checkSoakPath wants one order of the operations on one path that explains all that was
// seen. A change without an answer may take effect at any time after its call.
func checkSoakPath(ops []soakOp, patience time.Duration) (porcupine.CheckResult, porcupine.LinearizationInfo) {
	var h []porcupine.Operation
	for _, o := range ops {
		op := porcupine.Operation{ClientId: o.client, Input: o, Call: int64(o.call), Return: int64(o.ret)}
		if o.unknown {
			op.Return = math.MaxInt64
		}
		h = append(h, op)
	}
	return porcupine.CheckOperationsVerbose(soakModel, h, patience)
}

// check looks at every path. Where no order explains what was seen it prints the
// operations, and writes a picture of them to dir if there is one.
func (h *soakHistory) check(t *testing.T, dir string) (ops, unknown int) {
	t.Helper()
	for path, list := range h.ops {
		ops += len(list)
		for _, o := range list {
			if o.unknown {
				unknown++
			}
		}
		res, info := checkSoakPath(list, time.Minute)
		if res == porcupine.Ok {
			continue
		}
		slices.SortFunc(list, func(a, b soakOp) int { return cmp.Compare(a.call, b.call) })
		var b strings.Builder
		for _, o := range list {
			fmt.Fprintf(&b, "\n\t%v", o)
		}
		t.Errorf("store path %s: %s: no order of %d operations explains what was seen:%s", path, res, len(list), &b)
		if dir == "" {
			continue
		}
		f, err := os.Create(filepath.Join(dir, "history-"+path+".html"))
		if err != nil {
			t.Fatal(err)
		}
		if err := porcupine.Visualize(soakModel, info, f); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	return ops, unknown
}

// TestSoakModel holds the judge to what it must tell apart.
func TestSoakModel(t *testing.T) {
	const ms = time.Millisecond
	op := func(verb soakVerb, version string, call, ret time.Duration) soakOp {
		return soakOp{verb: verb, version: version, call: call, ret: ret}
	}
	lost := func(o soakOp) soakOp { o.unknown = true; return o }
	for _, c := range []struct {
		name string
		ops  []soakOp
		want porcupine.CheckResult
	}{
		{"read back", []soakOp{op(didPush, "1", 0, 2*ms), op(saw, "1", 3*ms, 4*ms)}, porcupine.Ok},
		{"denied after the acknowledgement", []soakOp{op(didPush, "1", 0, 2*ms), op(sawNone, "", 3*ms, 4*ms)}, porcupine.Illegal},
		{"denied meanwhile", []soakOp{op(didPush, "1", 0, 2*ms), op(sawNone, "", 1*ms, 4*ms)}, porcupine.Ok},
		{"a push without an answer, seen late", []soakOp{lost(op(didPush, "1", 0, 2*ms)), op(sawNone, "", 3*ms, 4*ms), op(saw, "1", 5*ms, 6*ms)}, porcupine.Ok},
		{"a push without an answer, applied twice", []soakOp{lost(op(didPush, "1", 0, 2*ms)), op(saw, "1", 3*ms, 4*ms), op(didPush, "2", 5*ms, 6*ms), op(saw, "1", 7*ms, 8*ms)}, porcupine.Illegal},
		{"back from the dead", []soakOp{op(didPush, "1", 0, 2*ms), op(didRemove, "", 3*ms, 4*ms), op(saw, "1", 5*ms, 6*ms)}, porcupine.Illegal},
		{"a stale hit is called earlier", []soakOp{op(didPush, "1", 0, 2*ms), op(didRemove, "", 3*ms, 4*ms), op(saw, "1", -5*ms, 6*ms)}, porcupine.Ok},
		{"of two removals both found it", []soakOp{op(didPush, "1", 0, 2*ms), op(didRemove, "", 3*ms, 4*ms), op(didRemove, "", 3*ms, 4*ms)}, porcupine.Illegal},
		{"a version nobody pushed", []soakOp{op(saw, "1", 3*ms, 4*ms)}, porcupine.Illegal},
		{"missing though pushed", []soakOp{op(didPush, "1", 0, 2*ms), op(sawSome, "", 3*ms, 4*ms), op(sawNone, "", 5*ms, 6*ms)}, porcupine.Illegal},
	} {
		if got, _ := checkSoakPath(c.ops, time.Minute); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
