package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/celler/celler/wal"
)

// finish lets the dust settle and checks what must hold.
func (r *run) finish(ctx context.Context) Result {
	r.w.FaultRate, r.w.DoubleWins, r.w.Lazy = 0, 0, ""
	res := Result{}
	for _, h := range r.histories {
		for _, o := range h {
			if o.Return == never {
				res.Unknown++
			} else {
				res.Commits++
			}
		}
	}
	if r.Rollback {
		r.knew = maps.Clone(r.w.seenRoot)
		r.w.store(wal.RootKey, r.backup.body)
	}
	done := false
	go func() {
		r.settle(ctx)
		done = true
	}()
	r.w.Run()
	if !done {
		r.violate("a node hangs although the bucket answers")
	}
	if r.DoubleWins == 0 && !r.Rollback {
		if v := check(slices.Concat(r.histories...)); v != "" {
			r.violate("%s", v)
		}
	}
	res.Trail, res.Steps = r.w.Trail(), r.w.Step()
	res.Violation = strings.Join(r.violations, "\n")
	return res
}

// settle compares every replica with a fresh one and stops them all.
func (r *run) settle(ctx context.Context) {
	fresh := &node{name: "fresh", w: r.w, seed: r.Seed*100 + 99, disk: &memoryDisk{}}
	if r.Pebble {
		fresh.disk = &pebbleDisk{w: r.w}
	}
	startErr := fresh.start(ctx, true)
	if startErr == nil {
		r.commitOnce(ctx, fresh)
	}
	for _, n := range r.nodes {
		r.compare(ctx, n, fresh, startErr)
	}
	if startErr == nil {
		if r.DoubleWins == 0 && !r.Rollback {
			r.exactlyOnce(fresh)
		}
		if err := fresh.stop(); err != nil {
			r.violate("stop the fresh replica: %v", err)
		}
	} else if r.DoubleWins == 0 && !r.Rollback {
		r.violate("a fresh replica does not start: %v", startErr)
	}
}

// commitOnce adds a segment that every replica has to digest.
func (r *run) commitOnce(ctx context.Context, n *node) {
	l, st := n.running()
	if _, err := perform(ctx, l, st, input{op: opSet, key: "end", value: "end"}); err != nil && !r.Rollback {
		r.violate("commit at the end: %v", err)
	}
}

// compare demands that a node has the state of the fresh one, or knows that it must not serve.
func (r *run) compare(ctx context.Context, n, fresh *node, startErr error) {
	l, st := n.running()
	if l == nil {
		if r.DoubleWins == 0 && !r.Rollback {
			r.violate("%s is down at the end", n.name)
		}
		return
	}
	defer func() {
		if err := n.stop(); err != nil {
			r.violate("stop %s: %v", n.name, err)
		}
	}()
	_, err := l.CatchUp(ctx)
	if err != nil {
		stopped := errors.Is(err, wal.ErrForked) || errors.Is(err, wal.ErrRolledBack)
		if r.DoubleWins == 0 && !r.Rollback || !stopped && l.Err() == nil {
			r.violate("%s cannot catch up at the end: %v", n.name, err)
		}
		return
	}
	if r.Rollback && r.knew[n.name] > version(r.backup.tag) {
		r.violate("%s serves although ROOT was rolled back", n.name)
		return
	}
	if startErr != nil || r.Rollback {
		return // whoever had not read a later ROOT cannot know that there was one
	}
	_, other := fresh.running()
	mine, theirs := dump(st, r.Pebble), dump(other, r.Pebble)
	if mine != theirs {
		r.violate("%s has another state than a fresh replica:\n%s---\n%s", n.name, mine, theirs)
	}
}

// exactlyOnce looks for acknowledged appends in the lists that nothing but appends touched.
func (r *run) exactlyOnce(n *node) {
	touched := map[string]bool{}
	for _, h := range r.histories {
		for _, o := range h {
			if in := o.Input.(input); in.op != opAppend && in.op != opRead {
				touched[in.key] = true
			}
		}
	}
	_, st := n.running()
	for value, key := range r.acked {
		v, _, err := st.Get([]byte(key))
		if err != nil {
			r.violate("read %s: %v", key, err)
			continue
		}
		n := occurrences(string(v), value)
		if n > 1 || n == 0 && !touched[key] {
			r.violate("acknowledged element %s is in %s %d times: %s", value, key, n, v)
		}
	}
}

// dump prints the rows that operations wrote, and if all is set the log's own.
func dump(v wal.View, all bool) string {
	var b strings.Builder
	for row, err := range v.Scan(nil, nil) {
		if err != nil {
			return err.Error()
		}
		if row.Key[0] != '!' {
			fmt.Fprintf(&b, "%s=%s\n", row.Key, row.Value)
		} else if all {
			fmt.Fprintf(&b, "%s=%x\n", row.Key, row.Value)
		}
	}
	return b.String()
}
