package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/celler/celler/blob"
)

// Fault is what happens to one call on a Faulty bucket.
type Fault uint8

// The faults. Those that make no sense for an operation (a late Get, a broken
// stream of a Create) count as None.
const (
	// None lets the call through.
	None Fault = iota
	// LostRequest fails the call before the bucket sees it.
	LostRequest
	// LostResponse fails the call after the bucket did what was asked.
	LostResponse
	// DelayedApply fails a write now and lets the bucket do it when Release is
	// called: the request that was still on its way when the client gave up.
	DelayedApply
	// ShortBody breaks the stream of a Get or GetRange half way.
	ShortBody
	// Slow delays the call by FaultyOptions.Delay, or until its context ends.
	Slow
	// Throttled answers 429: not applied, but the caller cannot know.
	Throttled
	// Unavailable answers 503: not applied, but the caller cannot know.
	Unavailable
	// StaleList makes a List leave out everything written since the previous
	// List through the same Faulty that was not stale (or since the beginning).
	StaleList
	// Denied refuses the call: a lock, or missing rights.
	Denied
)

var faultNames = [...]string{ //nolint:gochecknoglobals // a constant table
	"none", "lost request", "lost response", "delayed apply", "short body", "slow", "throttled", "unavailable", "stale list", "denied",
}

func (f Fault) String() string { return faultNames[f] }

// ErrInjected is in the tree of every error that a Faulty made up.
var ErrInjected = errors.New("injected fault")

// Decide says what happens to the n-th call (counted from 0).
type Decide func(n int, op string, key blob.Key) Fault

// Seeded lets a call in rate (0 to 1) suffer one of the faults, all equally
// likely. The decision is a pure function of the seed and n.
func Seeded(seed uint64, rate float64, faults ...Fault) Decide {
	return func(n int, _ string, _ blob.Key) Fault {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		if len(faults) == 0 || r.Float64() >= rate {
			return None
		}
		return faults[r.IntN(len(faults))]
	}
}

// Scripted gives the n-th call the n-th fault, and None when they are used up.
func Scripted(faults ...Fault) Decide {
	return func(n int, _ string, _ blob.Key) Fault {
		if n < len(faults) {
			return faults[n]
		}
		return None
	}
}

// FailAt gives the k-th call the fault. A loop over k until Calls() <= k breaks
// a scenario at each of its requests.
func FailAt(k int, fault Fault) Decide {
	return func(n int, _ string, _ blob.Key) Fault {
		if n == k {
			return fault
		}
		return None
	}
}

// FaultyOptions tunes a Faulty.
type FaultyOptions struct {
	Decide Decide        // default: no faults
	Delay  time.Duration // of Slow; default one second
}

// Faulty is a bucket that fails as told.
type Faulty struct {
	b blob.Bucket
	o FaultyOptions

	mu     sync.Mutex // guards the fields below
	decide Decide
	calls  int
	late   []func(context.Context)
	fresh  map[blob.Key]bool // written since the last listing that was not stale
}

var _ blob.Bucket = (*Faulty)(nil)

// NewFaulty wraps b.
func NewFaulty(b blob.Bucket, o FaultyOptions) *Faulty {
	if o.Delay == 0 {
		o.Delay = time.Second
	}
	f := &Faulty{b: b, o: o, fresh: make(map[blob.Key]bool)}
	f.Set(o.Decide)
	return f
}

// Set replaces the decision and starts counting calls from 0 again.
func (f *Faulty) Set(d Decide) {
	if d == nil {
		d = func(int, string, blob.Key) Fault { return None }
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.decide, f.calls = d, 0
}

// Calls returns how many calls were decided since the last Set.
func (f *Faulty) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Pending returns how many delayed writes wait for Release.
func (f *Faulty) Pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.late)
}

// Release lets the first n delayed writes happen, in the order they were made;
// a negative n means all. It returns how many there were. What they come to is
// nobody's to know, as with real ones.
func (f *Faulty) Release(ctx context.Context, n int) int {
	f.mu.Lock()
	if n < 0 || n > len(f.late) {
		n = len(f.late)
	}
	now := f.late[:n]
	f.late = f.late[n:]
	f.mu.Unlock()
	for _, apply := range now {
		apply(ctx)
	}
	return n
}

// next decides about one call.
func (f *Faulty) next(op string, key blob.Key) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.calls
	f.calls++
	return f.decide(n, op, key)
}

func (f *Faulty) fail(op string, key blob.Key, fault Fault) error {
	kind := blob.KindUnreachable
	switch fault {
	case Throttled, Unavailable:
		kind = blob.KindThrottled
	case Denied:
		kind = blob.KindDenied
	default:
	}
	return &blob.Error{Op: op, Bucket: "faulty", Key: key, Kind: kind, Err: fmt.Errorf("%w: %v", ErrInjected, fault)}
}

func (f *Faulty) sleep(ctx context.Context) error {
	timer := time.NewTimer(f.o.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// before is the part of a fault that comes before the bucket is asked.
func (f *Faulty) before(ctx context.Context, op string, key blob.Key) (Fault, error) {
	fault := f.next(op, key)
	switch fault {
	case LostRequest, Throttled, Unavailable, Denied:
		return fault, f.fail(op, key, fault)
	case Slow:
		if err := f.sleep(ctx); err != nil {
			return fault, &blob.Error{Op: op, Bucket: "faulty", Key: key, Err: err}
		}
	case None, LostResponse, DelayedApply, ShortBody, StaleList:
	}
	return fault, nil
}

// Get implements blob.Bucket.
func (f *Faulty) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	fault, err := f.before(ctx, "get", key)
	if err != nil {
		return nil, "", err
	}
	body, tag, err := f.b.Get(ctx, key)
	return f.afterGet("get", key, fault, body, tag, err)
}

// GetIf implements blob.Bucket.
func (f *Faulty) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	fault, err := f.before(ctx, "get_if", key)
	if err != nil {
		return nil, "", err
	}
	body, tag, err := f.b.GetIf(ctx, key, old)
	return f.afterGet("get_if", key, fault, body, tag, err)
}

func (f *Faulty) afterGet(op string, key blob.Key, fault Fault, body []byte, tag blob.Tag, err error) ([]byte, blob.Tag, error) {
	if fault == LostResponse || fault == ShortBody && err == nil {
		return nil, "", f.fail(op, key, fault)
	}
	return body, tag, err
}

// GetRange implements blob.Bucket.
func (f *Faulty) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	fault, err := f.before(ctx, "get_range", key)
	if err != nil {
		return nil, err
	}
	r, err := f.b.GetRange(ctx, key, off, n)
	switch {
	case err != nil:
		return nil, err
	case fault == LostResponse:
		return nil, errors.Join(f.fail("get_range", key, fault), r.Close())
	case fault == ShortBody:
		broken := brokenReader{f.fail("get_range", key, fault)}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(r, n/2), broken), r}, nil
	}
	return r, nil
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

// Create implements blob.Bucket.
func (f *Faulty) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	return f.write(ctx, "create", key, body, func(ctx context.Context, body []byte) (blob.Tag, error) {
		return f.b.Create(ctx, key, body)
	})
}

// Swap implements blob.Bucket.
func (f *Faulty) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	return f.write(ctx, "swap", key, body, func(ctx context.Context, body []byte) (blob.Tag, error) {
		return f.b.Swap(ctx, key, old, body)
	})
}

// Put implements blob.Bucket.
func (f *Faulty) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	return f.write(ctx, "put", key, body, func(ctx context.Context, body []byte) (blob.Tag, error) {
		return f.b.Put(ctx, key, body)
	})
}

func (f *Faulty) write(ctx context.Context, op string, key blob.Key, body []byte, do func(context.Context, []byte) (blob.Tag, error)) (blob.Tag, error) {
	fault, err := f.before(ctx, op, key)
	if err != nil {
		return "", err
	}
	if fault == DelayedApply {
		kept := bytes.Clone(body)
		f.postpone(func(ctx context.Context) { _, _ = f.landed(key)(do(ctx, kept)) })
		return "", f.fail(op, key, fault)
	}
	tag, err := f.landed(key)(do(ctx, body))
	if fault == LostResponse {
		return "", f.fail(op, key, fault)
	}
	return tag, err
}

func (f *Faulty) postpone(apply func(context.Context)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = append(f.late, apply)
}

// landed notes a write that happened, for StaleList.
func (f *Faulty) landed(key blob.Key) func(blob.Tag, error) (blob.Tag, error) {
	return func(tag blob.Tag, err error) (blob.Tag, error) {
		if err == nil {
			f.mu.Lock()
			f.fresh[key] = true
			f.mu.Unlock()
		}
		return tag, err
	}
}

// Delete implements blob.Bucket.
func (f *Faulty) Delete(ctx context.Context, keys ...blob.Key) error {
	var first blob.Key
	if len(keys) > 0 {
		first = keys[0]
	}
	fault, err := f.before(ctx, "delete", first)
	if err != nil {
		return err
	}
	if fault == DelayedApply {
		kept := append([]blob.Key{}, keys...)
		f.postpone(func(ctx context.Context) { _ = f.b.Delete(ctx, kept...) })
		return f.fail("delete", first, fault)
	}
	err = f.b.Delete(ctx, keys...)
	if fault == LostResponse {
		return f.fail("delete", first, fault)
	}
	return err
}

// List implements blob.Bucket.
func (f *Faulty) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		fault, err := f.before(ctx, "list", prefix)
		if fault == LostResponse {
			err = f.fail("list", prefix, fault)
		}
		if err != nil {
			yield(blob.Info{}, err)
			return
		}
		hidden := f.hidden(fault == StaleList)
		for info, err := range f.b.List(ctx, prefix, after) {
			if err == nil && hidden[info.Key] {
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// hidden returns what a listing leaves out; a listing that is not stale makes
// everything written so far known.
func (f *Faulty) hidden(stale bool) map[blob.Key]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !stale {
		f.fresh = make(map[blob.Key]bool)
		return nil
	}
	hidden := make(map[blob.Key]bool, len(f.fresh))
	for k := range f.fresh {
		hidden[k] = true
	}
	return hidden
}
