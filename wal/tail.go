package wal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/celler/celler/blob"
)

const (
	// maxWindow is how many slots are read at once by a replica that is behind.
	maxWindow = 64
	// maxReadAhead and maxReadAheadBytes bound what is read before it is applied.
	// A window is not cut short, so the most is both bounds and one window.
	maxReadAhead      = 128
	maxReadAheadBytes = 32 << 20
	// maxReplay is how far behind the snapshot a replica may be and still replay
	// the log. Loading a snapshot is then the cheaper way.
	maxReplay = 20_000
	// catchUpAttempts is how often a catch-up is tried in vain before its callers
	// hear of it. One that applied something was not in vain.
	catchUpAttempts = 3
)

// waiter is a caller of CatchUp.
type waiter struct {
	done chan struct{} // closed by the sequencer
	seq  Seq           // set before
	err  error
}

// serveWaiters catches up on behalf of everybody who asked before now, and learns
// from it what became of the pending batch.
func (l *Log) serveWaiters(ctx context.Context) error {
	l.mu.Lock()
	waiters := l.waiters
	l.waiters = nil
	l.mu.Unlock()

	err := l.catchUpPatiently(ctx)
	if l.o.Mutants.joinRunningCatchUp() {
		l.mu.Lock()
		waiters = append(waiters, l.waiters...)
		l.waiters = nil
		l.mu.Unlock()
	}
	serr := l.settle() // first: whoever has caught up finds in Err what is true now
	l.answerWaiters(waiters, err)
	if serr != nil {
		return serr
	}
	return err
}

func (l *Log) answerWaiters(waiters []*waiter, err error) {
	for _, w := range waiters {
		w.seq, w.err = l.seq, err
		close(w.done)
	}
}

// catchUpPatiently is catchUp, tried a few times. On a slow line the wide windows of
// a replica that is far behind may time out again and again; what was read before
// counts, so it gets there as long as each attempt gets anywhere.
func (l *Log) catchUpPatiently(ctx context.Context) error {
	retry := newBackoff(l.env)
	began := l.env.Now()
	for attempt := 1; ; attempt++ {
		before := l.seq
		err := l.catchUp(ctx)
		if err == nil {
			l.m.catchUpOK.Inc()
			l.m.catchUpSeconds.Update(l.env.Now().Sub(began).Seconds())
			return nil
		}
		if l.seq > before {
			attempt = 0
			retry.reset()
		}
		if attempt == catchUpAttempts || ctx.Err() != nil || l.fatalErr() != nil {
			l.m.catchUpFailed.Inc()
			return fmt.Errorf("catch up with the log: %w", err)
		}
		retry.sleep(ctx)
	}
}

// catchUp applies every slot up to the first empty one.
//
// The order of its steps is the reader's half of I1. The slots are read first and
// ROOT last, and nothing is applied in between. What was read from slot n counts
// only if ROOT, read after it, still has its floor at or below n: else the slot
// may have been deleted and created again by a writer that slept through it (a
// phantom), or its absence may not have been the tail.
func (l *Log) catchUp(ctx context.Context) error {
	began := l.env.Now()
	for window := 1; ; {
		first := l.seq + 1
		objects, atTail, readErr := l.readAhead(ctx, first, &window)
		if !l.o.Mutants.noReaderCheck() || l.rootTag == "" {
			if err := l.refreshRoot(ctx); err != nil {
				return err
			}
		}
		truncated := l.root.Floor > first
		if l.o.Mutants.noReaderCheck() && len(objects) > 0 {
			truncated = false
		}
		if truncated || l.root.Snapshot.Seq > l.seq+maxReplay {
			if err := l.bootstrap(ctx); err != nil {
				return err
			}
			continue
		}
		for _, object := range objects {
			if err := l.applyObject(object); err != nil {
				return err
			}
		}
		if readErr != nil {
			return readErr
		}
		if atTail {
			l.setFresh(began)
			return nil
		}
	}
}

// readAhead reads the objects of slots from first on: until one is missing
// (atTail), or fails, or enough has been read. The window doubles with each round
// of hits and survives the call, so that a replica far behind reads at full width.
func (l *Log) readAhead(ctx context.Context, first Seq, window *int) (objects [][]byte, atTail bool, err error) {
	total := 0
	for len(objects) < maxReadAhead && total < maxReadAheadBytes {
		round := 0
		for _, r := range l.readSlots(ctx, first+Seq(len(objects)), *window) {
			if errors.Is(r.err, blob.ErrNotExist) {
				return objects, true, nil
			}
			if r.err != nil {
				return objects, false, fmt.Errorf("read slot %v: %w", first+Seq(len(objects)), r.err)
			}
			objects = append(objects, r.body)
			round += len(r.body)
		}
		total += round
		if round > maxReadAheadBytes/2 {
			*window = max(1, *window/4)
		} else {
			*window = min(2**window, maxWindow)
		}
	}
	return objects, false, nil
}

type slotRead struct {
	body []byte
	err  error
}

// readSlots reads n slots at once.
func (l *Log) readSlots(ctx context.Context, first Seq, n int) []slotRead {
	reads := make([]slotRead, n)
	read := func(i int) {
		ctx, cancel := l.env.WithTimeout(ctx, l.o.CallTimeout)
		defer cancel()
		reads[i].body, _, reads[i].err = l.bucket.Get(ctx, (first + Seq(i)).Key())
	}
	var wg sync.WaitGroup
	for i := 1; i < n; i++ {
		wg.Add(1)
		l.env.Spawn(func() {
			defer wg.Done()
			read(i)
		})
	}
	read(0)
	wg.Wait()
	return reads
}

// readSlot reads a slot that somebody waits for.
func (l *Log) readSlot(ctx context.Context, seq Seq) slotRead {
	r, _ := l.ask(ctx, &l.reads, func(ctx context.Context, _ bool) (r reply) {
		r.body, r.tag, r.err = l.bucket.Get(ctx, seq.Key())
		return r
	})
	return slotRead{r.body, r.err}
}

// refreshRoot reads ROOT unless it is unchanged. Whatever it shows that cannot be
// is the end of this Log.
func (l *Log) refreshRoot(ctx context.Context) error {
	ctx, cancel := l.env.WithTimeout(ctx, l.o.CallTimeout)
	defer cancel()
	body, tag, err := l.bucket.GetIf(ctx, RootKey, l.rootTag)
	return l.adoptRoot(body, tag, err)
}

// confirmRoot is refreshRoot while somebody waits for it.
func (l *Log) confirmRoot(ctx context.Context) error {
	old := l.rootTag
	r, _ := l.ask(ctx, &l.reads, func(ctx context.Context, _ bool) (r reply) {
		r.body, r.tag, r.err = l.bucket.GetIf(ctx, RootKey, old)
		return r
	})
	return l.adoptRoot(r.body, r.tag, r.err)
}

func (l *Log) adoptRoot(body []byte, tag blob.Tag, err error) error {
	root, tag, err := decodeRoot(body, tag, err)
	if errors.Is(err, blob.ErrUnchanged) {
		return nil
	}
	if err != nil {
		if errors.Is(err, ErrTooOld) {
			return l.fail(err)
		}
		return err
	}
	if root.Store != l.store {
		return l.fail(&ForeignError{Key: RootKey, Store: root.Store, Own: l.store})
	}
	if l.rootTag != "" && !l.o.Mutants.noRollbackCheck() {
		if err := checkSuccession(l.root, root); err != nil {
			return l.fail(err)
		}
	}
	if err := root.readable(); err != nil {
		return l.fail(err)
	}
	l.root, l.rootTag = root, tag
	return nil
}

// bootstrap replaces the state by the snapshot that ROOT names. A snapshot may be
// replaced and deleted while it is loaded; the caller starts over from ROOT then.
func (l *Log) bootstrap(ctx context.Context) error {
	l.m.bootstraps.Inc()
	at := l.root.Snapshot
	l.log.Info("loading a snapshot", "snapshot", string(at.Key), "seq", uint64(at.Seq))
	if err := l.state.Reset(ctx, l.root); err != nil {
		return fmt.Errorf("load snapshot of slot %v, because the log before slot %v is gone: %w", at.Seq, l.root.Floor, err)
	}
	seq, digest, err := l.state.Position()
	if err != nil {
		return fmt.Errorf("read the state's position: %w", err)
	}
	if seq != at.Seq || digest != at.Digest {
		return l.fail(fmt.Errorf("load snapshot of slot %v: the state is at slot %v with digest %v, want %v", at.Seq, seq, digest, at.Digest))
	}
	l.advance(seq, digest)
	return nil
}

// applyObject checks and applies the object of the next slot.
func (l *Log) applyObject(object []byte) error {
	seq := l.seq + 1
	seg, digest, err := l.codec.decode(object)
	if err != nil {
		err = named(seq.Key(), err)
		if errors.Is(err, ErrTooOld) {
			return l.fail(err)
		}
		return err
	}
	switch {
	case seg.Store != l.store:
		return &ForeignError{Key: seq.Key(), Store: seg.Store, Own: l.store}
	case seg.Seq != seq:
		return named(seq.Key(), corrupt(24, "seq", seq.String(), seg.Seq))
	case seg.Prev != l.digest && !l.o.Mutants.noPrevCheck():
		// Two objects were the object of slot seq-1. Which of the two is the
		// truth is not ours to say (I5).
		return l.fail(&ForkError{Seq: seq, Detail: fmt.Sprintf("it follows an object with digest %v, slot %v has %v here", seg.Prev, l.seq, l.digest)})
	}
	if b := l.pending; b != nil && b.seq == seq && b.digest != digest {
		b.outrun = true
	}
	if seg.Writer != l.writer {
		l.pace.sawForeign(seg.Writer, l.env.Now())
	} else {
		l.ownSeen = seg.Batch
		l.cloned = l.cloned || !l.recognises(digest)
	}
	return l.apply(seg, digest)
}

// recognises reports whether a segment under our writer id is ours: it must be the
// batch in doubt, because what we know to be ours was applied by us. If it is not,
// there is a copy of this process, from a snapshot of a virtual machine perhaps.
func (l *Log) recognises(digest Digest) bool {
	if l.o.Mutants.renumberInDoubt() || l.o.Mutants.skipInDoubtSlot() {
		return true // these forget what they sent
	}
	return l.pending != nil && l.pending.digest == digest
}

// apply makes a verified segment part of the state (I5).
func (l *Log) apply(seg *Segment, digest Digest) error {
	if err := l.state.Apply(seg, digest); err != nil {
		return l.fail(fmt.Errorf("apply slot %v: %w", seg.Seq, err))
	}
	l.m.applied.Inc()
	l.lead(seg)
	l.advance(seg.Seq, digest)
	if l.o.OnApply != nil {
		l.o.OnApply(seg)
	}
	return nil
}

// advance publishes that the state is now that after slot seq.
func (l *Log) advance(seq Seq, digest Digest) {
	l.seq, l.digest = seq, digest
	l.m.seq.Set(float64(seq))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.applied = seq
	close(l.advanced)
	l.advanced = make(chan struct{})
}

func (l *Log) setFresh(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.After(l.fresh) {
		l.fresh = t
	}
}

// checkPosition makes sure, before anything else, that what the state says it has
// applied is what the log has in that slot. It is how a replica notices that the
// bucket was restored from a backup, or exchanged, while it was not looking.
func (l *Log) checkPosition(ctx context.Context) error {
	if l.seq == 0 {
		return l.refreshRoot(ctx)
	}
	read := l.readSlots(ctx, l.seq, 1)[0]
	if err := l.refreshRoot(ctx); err != nil {
		return err
	}
	if l.root.Floor > l.seq {
		return nil // the slot need not be there any more
	}
	switch {
	case errors.Is(read.err, blob.ErrNotExist):
		return l.fail(fmt.Errorf("%w: slot %d, which this replica has applied, is missing", ErrRolledBack, uint64(l.seq)))
	case read.err != nil:
		return fmt.Errorf("read slot %v: %w", l.seq, read.err)
	case DigestOf(read.body) != l.digest:
		return l.fail(&ForkError{Seq: l.seq, Detail: fmt.Sprintf("its object has digest %v, this replica applied %v", DigestOf(read.body), l.digest)})
	}
	return nil
}
