package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/celler/celler/compact"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

// Trial is one run: so many nodes, clients and troublemakers on one bucket.
type Trial struct {
	Seed       uint64
	Nodes      int
	Clients    int // each performs Ops operations on nodes of its choice
	Ops        int
	Compactors int // each truncates the log Rounds times
	Rounds     int
	Restarts   int  // of nodes, in turn with and without their disk
	Pebble     bool // nodes keep the real index
	Tables     bool // compactors are the real ones; needs Pebble
	FaultRate  float64
	DoubleWins float64
	Rollback   bool // an operator puts back an old ROOT
	Forward    bool // nodes commit for each other
	Hedge      bool // nodes send again what is not answered soon
	Mutants    wal.Mutants
	Compact    compact.Mutants
	Trace      io.Writer
}

// Result is what a run came to.
type Result struct {
	Violation string // what went wrong, or ""
	Trail     uint64
	Steps     int64
	Commits   int // acknowledged
	Unknown   int // operations whose outcome nobody learned
}

type run struct {
	Trial
	w     *World
	nodes []*node

	backup object         // of ROOT, if there is an operator
	knew   map[string]int // the version of ROOT that each node had seen before the backup came back

	mu         sync.Mutex // guards what follows
	histories  [][]porcupine.Operation
	acked      map[string]string // element -> key of acknowledged appends that nothing can have overwritten
	violations []string
}

// Run performs the trial. It must be called inside a synctest bubble.
func (t Trial) Run(ctx context.Context) Result {
	r := &run{Trial: t, w: NewWorld(t.Seed), acked: map[string]string{}}
	r.w.Trace = t.Trace
	rng := rand.New(rand.NewPCG(t.Seed, 1))
	if _, err := (wal.Founding{Env: r.w.Env("founder", t.Seed, 0)}).Found(ctx, founder{r.w}, wal.Format{Profile: "fast2016-16k"}); err != nil {
		return Result{Violation: fmt.Sprintf("found the bucket: %v", err)}
	}
	r.w.FaultRate, r.w.DoubleWins = t.FaultRate, t.DoubleWins
	for i := range t.Nodes {
		n := &node{
			name: fmt.Sprintf("node%d", i), w: r.w, seed: t.Seed*100 + uint64(i), mutants: t.Mutants, hedge: t.Hedge,
			drift: time.Duration(rng.IntN(48)-24) * time.Hour, disk: r.newDisk(),
		}
		if t.Forward {
			n.forward = r.forwarder(n.name)
		}
		r.nodes = append(r.nodes, n)
	}
	if rng.IntN(2) == 0 {
		r.w.Lazy = r.nodes[rng.IntN(t.Nodes)].name
	}
	r.histories = make([][]porcupine.Operation, t.Clients)
	for _, n := range r.nodes {
		go r.boot(ctx, n)
	}
	for c := range t.Clients {
		go r.client(ctx, c)
	}
	for c := range t.Compactors {
		if t.Tables {
			go r.tableCompactor(ctx, c)
		} else {
			go r.compactor(ctx, c)
		}
	}
	if t.Restarts > 0 {
		go r.restarter(ctx)
	}
	if t.Rollback {
		go r.operator()
	}
	r.w.Run()
	return r.finish(ctx)
}

func (r *run) newDisk() Disk {
	if r.Pebble {
		return &pebbleDisk{w: r.w}
	}
	return &memoryDisk{}
}

func (r *run) violate(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = append(r.violations, fmt.Sprintf(format, args...))
}

// boot starts a node, however often the bucket refuses.
func (r *run) boot(ctx context.Context, n *node) {
	var err error
	for range 50 {
		r.w.Pause(n.name, "boot")
		if err = n.start(ctx, false); err == nil {
			return
		}
		if errors.Is(err, wal.ErrForked) || errors.Is(err, wal.ErrRolledBack) {
			return // the checks at the end expect that of some trials
		}
	}
	r.violate("%s does not start: %v", n.name, err)
}

// client performs operations on nodes of its choice.
func (r *run) client(ctx context.Context, c int) {
	name := fmt.Sprintf("client%d", c)
	rng := rand.New(rand.NewPCG(r.Seed, 1000+uint64(c)))
	id := c
	for i := range r.Ops {
		r.w.Pause(name, "operation")
		l, st := r.nodes[rng.IntN(len(r.nodes))].running()
		for range 300 {
			if l != nil {
				break
			}
			r.w.Pause(name, "wait for a node")
			l, st = r.nodes[rng.IntN(len(r.nodes))].running()
		}
		in := input{op: r.pick(rng), key: fmt.Sprintf("k%d", rng.IntN(3)), value: fmt.Sprintf("%d.%d", c, i)}
		if l == nil {
			continue
		}
		begin := 2 * r.w.Step()
		out, err := perform(ctx, l, st, in)
		if nothingHappened(err) {
			continue
		}
		if r.Forward && in.op == opAppend {
			out = output{unknown: true} // another node may have built it
		}
		o := porcupine.Operation{ClientId: id, Input: in, Call: begin, Output: out, Return: 2*r.w.Step() + 1}
		if err != nil {
			if in.op == opRead {
				continue
			}
			out.unknown = true
			o.Output, o.Return = out, never
			id += r.Clients // an operation without end ends this client's life
		}
		r.histories[c] = append(r.histories[c], o)
		if err == nil && in.op == opAppend {
			r.mu.Lock()
			r.acked[in.value] = in.key
			r.mu.Unlock()
		}
	}
}

// pick chooses an operation; appends most, because they tell most.
func (r *run) pick(rng *rand.Rand) string {
	return []string{opAppend, opAppend, opAppend, opRead, opRead, opClaim, opClaim, opSet, opDelete}[rng.IntN(9)]
}

var errTaken = errors.New("taken") //nolint:gochecknoglobals // an error value

// perform runs one operation against a node.
func perform(ctx context.Context, l *wal.Log, st State, in input) (out output, err error) {
	key := []byte(in.key)
	if in.op == opRead {
		if _, err := l.CatchUp(ctx); err != nil {
			return out, err
		}
		v, _, err := st.Get(key)
		return output{value: string(v)}, err
	}
	_, err = l.Commit(ctx, operation(in, &out))
	if errors.Is(err, errTaken) {
		return output{refused: true}, nil
	}
	return out, err
}

// operation returns what performs in, and sets out to its result.
func operation(in input, out *output) wal.Op {
	key := []byte(in.key)
	return wal.Op{Name: in.op, Intent: in.intent, Build: func(v wal.View) ([]wal.Entry, error) {
		old, _, err := v.Get(key)
		if err != nil {
			return nil, err
		}
		*out = output{value: in.value}
		switch in.op {
		case opDelete:
			if len(old) == 0 {
				return nil, nil
			}
			return []wal.Entry{{Kind: wal.Delete, Key: key}}, nil
		case opClaim:
			if len(old) > 0 {
				return nil, errTaken
			}
		case opAppend:
			out.value = appendTo(string(old), in.value)
		}
		return []wal.Entry{{Kind: wal.Set, Key: key, Value: []byte(out.value)}}, nil
	}}
}

// nothingHappened reports whether err promises so.
func nothingHappened(err error) bool {
	if err == nil || errors.Is(err, wal.ErrUnknown) {
		return false
	}
	for _, e := range []error{wal.ErrConflict, wal.ErrUnavailable, wal.ErrClosed, wal.ErrForked, wal.ErrRolledBack} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// compactor snapshots the state and truncates the log, as any node may.
func (r *run) compactor(ctx context.Context, c int) {
	name := fmt.Sprintf("compact%d", c)
	n := &node{name: name, w: r.w, seed: r.Seed*100 + 50 + uint64(c), disk: &memoryDisk{}}
	r.boot(ctx, n)
	l, st := n.running()
	if l == nil {
		return
	}
	for range r.Rounds {
		r.w.Pause(name, "round")
		if _, err := l.CatchUp(ctx); err != nil || l.Seq() == 0 {
			continue
		}
		ref, err := st.(memoryState).Snapshot(ctx, r.w.Bucket(name))
		if err != nil {
			continue // whether it was written or not, ROOT does not name it
		}
		change := wal.RootChange{Env: r.w.Env(name, n.seed+7, 0), By: name}
		_ = waltest.Truncate(ctx, r.w.Bucket(name), change, ref) // an unfinished round is one of the cases
	}
	_ = n.stop()
}

// restarter crashes nodes and starts them again.
func (r *run) restarter(ctx context.Context) {
	rng := rand.New(rand.NewPCG(r.Seed, 2))
	for i := range r.Restarts {
		r.w.Pause("restart", "crash")
		n := r.nodes[rng.IntN(len(r.nodes))]
		if l, _ := n.running(); l == nil {
			continue
		}
		if err := n.stop(); err != nil {
			r.violate("stop %s: %v", n.name, err)
		}
		wipe := i%2 == 1
		for range 50 {
			r.w.Pause("restart", "start")
			err := n.start(ctx, wipe)
			if err == nil {
				break
			}
			wipe = false
			if errors.Is(err, wal.ErrForked) || errors.Is(err, wal.ErrRolledBack) {
				break
			}
		}
	}
}

// operator remembers a version of ROOT, which finish puts back as a restored
// backup would.
func (r *run) operator() {
	for range 3 {
		r.w.Pause("operator", "copy ROOT")
	}
	r.backup = r.w.objects[string(wal.RootKey)]
}
