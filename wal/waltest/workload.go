package waltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// Workload lets several logs append to a few shared lists at once. Each append is
// an operation whose entries depend on the state it is built on, so that one that
// is lost, done twice, built on a wrong state, or out of order shows in a list.
type Workload struct {
	Logs    []*wal.Log
	States  []*State // of the logs, in the same order
	Lists   int      // default 2
	Appends int      // by each client; default 10
	Clients int      // of each log; default 2

	// Meanwhile, if set, runs at the same time, once per log.
	Meanwhile func(ctx context.Context, log int)
}

// appended is what became of one append, or of one read, in a history.
type appended struct {
	list      string
	id        string // empty: a read
	call, ret int    // moments of the call and of the return
	seen      []string
	err       error
}

type history struct {
	mu     sync.Mutex // guards the fields below
	moment int
	done   []appended
}

func (h *history) now() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moment++
	return h.moment
}

func (h *history) add(a appended) {
	a.ret = h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = append(h.done, a)
}

// Run performs the workload and returns what a check against a fresh replica of
// bucket finds wrong. The bucket must be without faults by then, so final gets
// called in between.
func (w Workload) Run(t testing.TB, bucket blob.Bucket, final func()) []string {
	t.Helper()
	w.Lists, w.Appends, w.Clients = orDefault(w.Lists, 2), orDefault(w.Appends, 10), orDefault(w.Clients, 2)
	var h history
	var wg sync.WaitGroup
	for i := range w.Logs {
		for c := range w.Clients {
			wg.Go(func() { w.client(t.Context(), &h, i, fmt.Sprintf("%d.%d", i, c)) })
		}
		if w.Meanwhile != nil {
			wg.Go(func() { w.Meanwhile(t.Context(), i) })
		}
	}
	wg.Wait()
	final()
	return w.check(t, bucket, &h)
}

func orDefault(n, d int) int {
	if n == 0 {
		return d
	}
	return n
}

func (w Workload) client(ctx context.Context, h *history, log int, name string) {
	for i := range w.Appends {
		a := appended{list: fmt.Sprintf("list%d", i%w.Lists), call: h.now()}
		if i%3 == 2 {
			if _, a.err = w.Logs[log].CatchUp(ctx); a.err == nil {
				a.seen = read(w.States[log], a.list)
			}
		} else {
			a.id = fmt.Sprintf("%s.%d", name, i)
			_, a.err = w.Logs[log].Commit(ctx, Append(a.list, a.id))
		}
		h.add(a)
	}
}

// Append is an operation that appends id to a list of ids.
func Append(list, id string) wal.Op {
	return wal.Op{Name: "append " + id, Cost: 100, Build: func(v wal.View) ([]wal.Entry, error) {
		old, ok, err := v.Get([]byte(list))
		if err != nil {
			return nil, err
		}
		if ok {
			id = string(old) + " " + id[strings.LastIndexByte(id, ' ')+1:]
		}
		return []wal.Entry{{Kind: wal.Set, Key: []byte(list), Value: []byte(id)}}, nil
	}}
}

func read(v wal.View, list string) []string {
	value, _, _ := v.Get([]byte(list)) // a State in memory has no errors
	return strings.Fields(string(value))
}

// check compares the history with the lists as a replica finds them that reads the
// log, or the snapshot and the rest of the log.
func (w Workload) check(t testing.TB, bucket blob.Bucket, h *history) []string {
	t.Helper()
	truth := NewState(bucket)
	l, err := wal.Open(t.Context(), bucket, truth, wal.Options{})
	if err != nil {
		return []string{fmt.Sprintf("a fresh replica cannot open the log: %v", err)}
	}
	defer l.Close()
	var wrong []string
	for _, a := range h.done {
		final := read(truth, a.list)
		if a.id == "" {
			if a.err == nil && !slices.Equal(a.seen, final[:min(len(a.seen), len(final))]) {
				wrong = append(wrong, fmt.Sprintf("a read of %s saw %v, which is no beginning of %v", a.list, a.seen, final))
			}
			continue
		}
		n := 0
		for _, id := range final {
			if id == a.id {
				n++
			}
		}
		unknown := errors.Is(a.err, wal.ErrUnknown)
		if n > 1 || a.err == nil && n != 1 || a.err != nil && !unknown && n != 0 {
			wrong = append(wrong, fmt.Sprintf("append of %s returned %v and is in %s %d times", a.id, a.err, a.list, n))
		}
	}
	wrong = append(wrong, checkOrder(truth, h.done)...)
	for i, l := range w.Logs {
		if _, err := l.CatchUp(t.Context()); err != nil {
			wrong = append(wrong, fmt.Sprintf("log %d cannot catch up: %v", i, err))
		} else if w.States[i].Dump() != truth.Dump() {
			wrong = append(wrong, fmt.Sprintf("log %d has\n%s\nand a fresh replica\n%s", i, w.States[i].Dump(), truth.Dump()))
		}
	}
	return wrong
}

// checkOrder compares the order of what was acknowledged with the order in time: who
// was acknowledged before another began comes first, and is seen by later reads.
func checkOrder(truth *State, done []appended) []string {
	var wrong []string
	for _, a := range done {
		if a.id == "" || a.err != nil {
			continue
		}
		final := read(truth, a.list)
		for _, b := range done {
			if b.list != a.list || b.err != nil || b.call <= a.ret {
				continue
			}
			if b.id == "" && !slices.Contains(b.seen, a.id) {
				wrong = append(wrong, fmt.Sprintf("a read of %s began after %s was acknowledged and saw %v", a.list, a.id, b.seen))
			}
			if b.id != "" && slices.Index(final, b.id) < slices.Index(final, a.id) {
				wrong = append(wrong, fmt.Sprintf("%s began after %s was acknowledged and precedes it in %v", b.id, a.id, final))
			}
		}
	}
	return wrong
}
