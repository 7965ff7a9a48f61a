package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/celler/celler/internal/queue"
	"github.com/celler/celler/nix"
)

// Totals are counted since the agent started.
type Totals struct {
	Pushed   int   `json:"pushed"`   // paths of the queue that are in their caches now
	Gone     int   `json:"gone"`     // paths of the queue that were not in the local store any more
	Damaged  int   `json:"damaged"`  // entries that could not be read; a Status counts all that are set aside, whenever that was
	Failures int   `json:"failures"` // attempts at an entry that failed
	Uploaded int   `json:"uploaded"` // paths sent, with what the queued ones refer to
	Bytes    int64 `json:"nar_bytes"`
}

// Status is how an agent is doing.
type Status struct {
	Running bool          `json:"running"`
	Queue   string        `json:"queue"`            // directory
	Silent  bool          `json:"silent,omitempty"` // it runs and does not answer; this is what the queue tells
	PID     int           `json:"pid,omitempty"`
	Since   *time.Time    `json:"since,omitempty"`
	Entries int           `json:"entries"` // in the queue
	Queued  int           `json:"queued"`  // paths they name
	Oldest  *time.Time    `json:"oldest,omitempty"`
	Caches  []CacheStatus `json:"caches"`
	Failing []Failure     `json:"failing"` // entries that failed and are tried again, the first 20
	Totals
	// LastError is the latest of the caches' errors that is not over.
	LastError string `json:"last_error,omitempty"`
	// Roots says why what is queued could not be protected from collection.
	Roots string `json:"roots_error,omitempty"`
}

// CacheStatus is what an agent knows of one target.
type CacheStatus struct {
	Cache          string     `json:"cache"` // "": entries that name none, of an agent that has none
	NoClosure      bool       `json:"no_closure,omitempty"`
	IgnoreUpstream bool       `json:"ignore_upstream,omitempty"`
	Entries        int        `json:"entries"`
	Pushing        int        `json:"pushing"` // of the entries
	LastPush       *time.Time `json:"last_push,omitempty"`
	LastError      string     `json:"last_error,omitempty"` // of an error that is not over
	LastErrorAt    *time.Time `json:"last_error_at,omitempty"`
	Retry          *time.Time `json:"retry,omitempty"` // when the cache is tried again
}

// Failure is an entry that could not be pushed.
type Failure struct {
	Cache    string    `json:"cache"`
	Path     string    `json:"store_path"` // the first of its paths
	Queued   time.Time `json:"queued"`
	Attempts int       `json:"attempts"`
	Err      string    `json:"err"`
}

func (f Failure) String() string { return fmt.Sprintf("%s: %s", f.Path, f.Err) }

// maxFailures is how many failures are named; the rest is counted.
const maxFailures = 20

// status is taken by Run's goroutine.
func (a *Agent) status() Status {
	s := Status{
		Running: true, Queue: a.o.Queue.Dir(), PID: pid(), Since: &a.began, Entries: len(a.items), Queued: len(a.paths),
		Caches: []CacheStatus{}, Failing: []Failure{}, Totals: a.totals, Roots: a.rootErr,
	}
	for _, it := range a.items {
		if at := it.entry.Queued; s.Oldest == nil || at.Before(*s.Oldest) {
			s.Oldest = &at
		}
	}
	if n, err := a.o.Queue.Damaged(); err == nil {
		s.Damaged = n
	}
	var latest time.Time
	for _, l := range a.order {
		s.Caches = append(s.Caches, l.status())
		if l.err != nil && l.errAt.After(latest) {
			latest, s.LastError = l.errAt, l.err.Error()
		}
		for _, it := range l.items {
			if it.err != nil && len(s.Failing) < maxFailures {
				s.Failing = append(s.Failing, it.failure(it.err))
			}
			if it.err != nil && s.LastError == "" {
				s.LastError = it.err.Error()
			}
		}
	}
	return s
}

func (l *lane) status() CacheStatus {
	c := CacheStatus{
		Cache: l.target.Cache, NoClosure: l.target.NoClosure, IgnoreUpstream: l.target.IgnoreUpstream, Entries: len(l.items),
	}
	for _, it := range l.items {
		if it.pushing {
			c.Pushing++
		}
	}
	if at := l.lastDone; !at.IsZero() {
		c.LastPush = &at
	}
	if l.err != nil {
		errAt, next := l.errAt, l.next
		c.LastError, c.LastErrorAt, c.Retry = l.err.Error(), &errAt, &next
	}
	if l.homeless() && len(l.items) > 0 {
		c.LastError = errHomeless.Error()
	}
	return c
}

var errHomeless = errors.New("the entries name no cache, and the agent was given none")

func (it *item) failure(err error) Failure {
	return Failure{it.entry.Target.Cache, it.entry.Paths[0].String(), it.entry.Queued, it.attempts, err.Error()}
}

// statusLine is what a service manager shows.
func (a *Agent) statusLine() string {
	var words []string
	words = append(words, fmt.Sprintf("%d paths queued, %d pushed", len(a.paths), a.totals.Pushed))
	for _, l := range a.order {
		if l.err != nil {
			words = append(words, strings.Join(strings.Fields(fmt.Sprintf("%s: %v", l.target.Cache, l.err)), " "))
		}
	}
	return "STATUS=" + strings.Join(words, "; ")
}

// WaitResult is what became of everything that was queued when somebody began to wait.
type WaitResult struct {
	Entries  int       `json:"entries"`  // there were
	Undone   int       `json:"undone"`   // still in the queue
	Failures []Failure `json:"failures"` // of those undone, the first 20
}

// waiter waits for entries.
type waiter struct {
	left   map[queue.ID]struct{}
	result WaitResult
	reply  chan WaitResult // holds one
}

// wait begins to wait for all there is, and sees to it that everything is tried now.
func (a *Agent) wait() *waiter {
	w := &waiter{left: map[queue.ID]struct{}{}, reply: make(chan WaitResult, 1)}
	w.result.Failures = []Failure{}
	now := a.o.Now()
	for _, l := range a.order {
		l.next = now
	}
	for id, it := range a.items {
		if it.done {
			continue
		}
		it.next = now
		w.left[id] = struct{}{}
		w.result.Entries++
		if it.lane.homeless() {
			w.settle(it, errHomeless)
		}
	}
	a.waiters[w] = struct{}{}
	return w
}

func (w *waiter) settle(it *item, err error) {
	if _, waiting := w.left[it.id]; !waiting {
		return
	}
	delete(w.left, it.id)
	if err == nil {
		return
	}
	w.result.Undone++
	if len(w.result.Failures) < maxFailures {
		w.result.Failures = append(w.result.Failures, it.failure(err))
	}
}

// resolve tells those who wait that an item is done, or why it is not.
func (a *Agent) resolve(it *item, err error) {
	for w := range a.waiters {
		w.settle(it, err)
	}
}

// answer lets go of who has nothing to wait for.
func (a *Agent) answer() {
	for w := range a.waiters {
		if len(w.left) == 0 {
			delete(a.waiters, w)
			w.reply <- w.result
		}
	}
}

// drained reports whether nothing is left but what has failed and waiting does not mend.
func (a *Agent) drained() bool {
	if a.running > 0 {
		return false
	}
	for _, it := range a.items {
		if it.attempts == 0 && !it.done && !it.lane.homeless() && !it.lane.hopeless {
			return false
		}
	}
	return true
}

// failures says why what is left is left.
func (a *Agent) failures(failures []Failure) []Failure {
	for _, l := range a.order {
		for _, it := range l.items {
			err := it.err
			if err == nil {
				err = l.err
			}
			if l.homeless() {
				err = errHomeless
			}
			if err == nil {
				err = errors.New("not tried yet")
			}
			if len(failures) < maxFailures {
				failures = append(failures, it.failure(err))
			}
		}
	}
	return failures
}

// StatusWithin asks the agent of a queue how it is doing. If there is none, or it does not
// answer for so long, the queue tells what it can.
func StatusWithin(ctx context.Context, q *queue.Queue, limit time.Duration) (Status, error) {
	soon, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := StatusAt(soon, q.Socket())
	if _, absent := errors.AsType[*NotRunningError](err); absent {
		return StatusOf(q)
	}
	if err != nil && soon.Err() != nil && ctx.Err() == nil {
		s, err = StatusOf(q)
		s.Running, s.Silent, s.PID = true, true, q.PID()
	}
	return s, err
}

// StatusOf is the status of a queue without an agent.
func StatusOf(q *queue.Queue) (Status, error) {
	s := Status{Queue: q.Dir(), Caches: []CacheStatus{}, Failing: []Failure{}}
	ids, err := q.IDs()
	if err != nil {
		return s, err
	}
	caches := map[queue.Target]int{} // places in s.Caches
	paths := map[nix.StorePath]bool{}
	for _, id := range ids {
		e, err := q.Read(id)
		if errors.Is(err, queue.ErrGone) {
			continue
		}
		if _, damaged := errors.AsType[*queue.DamagedError](err); damaged {
			s.Damaged++
			continue
		}
		if err != nil {
			return s, err
		}
		s.Entries++
		if s.Oldest == nil || e.Queued.Before(*s.Oldest) {
			s.Oldest = &e.Queued
		}
		for _, p := range e.Paths {
			paths[p] = true
		}
		i, ok := caches[e.Target]
		if !ok {
			i = len(s.Caches)
			caches[e.Target] = i
			s.Caches = append(s.Caches, CacheStatus{Cache: e.Target.Cache, NoClosure: e.Target.NoClosure, IgnoreUpstream: e.Target.IgnoreUpstream})
		}
		s.Caches[i].Entries++
	}
	s.Queued = len(paths)
	aside, err := q.Damaged()
	s.Damaged += aside
	return s, err
}
