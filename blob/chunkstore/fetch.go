package chunkstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
)

const (
	// mostTries is how often a GET is sent again without any progress in between
	// before the read fails. The driver has its own retries below that; these are
	// for streams that break and for bytes that arrive damaged.
	mostTries = 4

	// firstPause doubles with every try without progress.
	firstPause = 50 * time.Millisecond

	// gapBytes between two extents of a pack are read over: that takes less time
	// than another request.
	gapBytes = 64 << 10
)

// fetched is a compressed frame on its way from the bucket, filled once, by
// whichever GET is first.
type fetched struct {
	view *packView
	n    int // number of the frame

	users atomic.Int32 // units that have not yet done with data

	once sync.Once
	done chan struct{} // closed when data or err is set
	data []byte
	err  error
}

func newFetched(v *packView, n int) *fetched {
	return &fetched{view: v, n: n, done: make(chan struct{})}
}

func (f *fetched) frame() chunk.Frame { return f.view.Frames[f.n] }

func (f *fetched) fill(data []byte, err error) (first bool) {
	f.once.Do(func() {
		f.data, f.err = data, err
		first = true
		close(f.done)
	})
	return first
}

func (f *fetched) filled() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// release is called by each unit when it needs the bytes no more.
func (f *fetched) release(pool *bufferPool) {
	if f.users.Add(-1) == 0 {
		pool.put(f.data)
		f.data = nil
	}
}

// wait returns the frame's bytes, whose checksum is right.
func (f *fetched) wait(ctx context.Context) ([]byte, error) {
	select {
	case <-f.done:
		return f.data, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// extent is a sequence of frames of one object, in order, that one GET fetches.
type extent struct {
	s        *Store
	frames   []*fetched
	progress atomic.Int64 // frames filled by this extent's GETs
}

func (e *extent) key() blob.Key { return e.frames[0].view.key() }

// missing returns the number of the first frame that has not arrived.
func (e *extent) missing() int {
	for i, f := range e.frames {
		if !f.filled() {
			return i
		}
	}
	return len(e.frames)
}

// run fetches the extent, or fills what is missing with the error. It sends a GET
// again from the first missing frame when one breaks, and a second one beside it
// when it is much slower than others were. If both make no progress, it starts
// over, as after an error.
func (e *extent) run(ctx context.Context) {
	tries := 0
	for seen := int64(0); ; {
		err := e.round(ctx, tries)
		if e.missing() == len(e.frames) {
			return
		}
		if now := e.progress.Load(); now > seen {
			seen, tries = now, 0
		}
		if tries++; tries >= mostTries || permanent(ctx, err) {
			e.fail(err)
			return
		}
		e.s.m.retries.Inc()
		if !pause(ctx, firstPause<<(tries-1)) {
			e.fail(ctx.Err())
			return
		}
	}
}

// round sends a GET, and a second one if the first makes no progress, and returns
// when the extent is complete or all GETs have ended. It is the more patient the
// more tries were in vain: what is slow may be the bucket and not the request.
func (e *extent) round(ctx context.Context, tries int) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan error, 2) // one place for each GET, so that none blocks
	running := 0
	start := func() {
		running++
		go func() { results <- e.get(ctx) }()
	}
	defer func() {
		cancel()
		for ; running > 0; running-- {
			<-results
		}
	}()
	start()
	patience, hedge := e.patience(tries)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for seen := e.progress.Load(); ; {
		select {
		case err = <-results:
			running--
			if running == 0 || e.missing() == len(e.frames) {
				return err
			}
			continue
		case <-timer.C:
		}
		switch now := e.progress.Load(); {
		case now > seen:
			seen = now
		case hedge && running == 1:
			hedge = false
			e.s.m.hedges.Inc()
			start()
		default:
			return fmt.Errorf("no progress for %v", patience)
		}
		patience, _ = e.patience(tries)
		timer.Reset(patience)
	}
}

// stallTimeout ends a GET that stands still where none may be sent beside it.
const stallTimeout = 30 * time.Second

// patience returns how long the next frame may take after so many tries, and
// whether a second GET may be sent after that.
func (e *extent) patience(tries int) (time.Duration, bool) {
	n := int64(0)
	if i := e.missing(); i < len(e.frames) {
		n = e.frames[i].frame().Size
	}
	d, ok := e.s.peers.patience(n)
	if !ok {
		return stallTimeout, false
	}
	return min(d<<tries, stallTimeout), true
}

// fail gives the frames that have not arrived an error.
func (e *extent) fail(err error) {
	for _, f := range e.frames {
		fr := f.frame()
		f.fill(nil, fmt.Errorf("fetch %s, bytes %d to %d: %w", e.key(), fr.Offset, fr.Offset+fr.Size, err))
	}
}

// permanent reports whether it makes no sense to try again.
func permanent(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, blob.ErrNotExist) {
		return true
	}
	kind := blob.KindOf(err)
	return kind == blob.KindDenied || kind == blob.KindNoBucket
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// get sends one GET for all that is missing and fills the frames as they arrive
// and prove right.
func (e *extent) get(ctx context.Context) error {
	first := e.missing()
	if first == len(e.frames) {
		return nil
	}
	frames := e.frames[first:]
	last := frames[len(frames)-1].frame()
	off, end := frames[0].frame().Offset, last.Offset+last.Size
	begin := e.s.o.Now()
	e.s.m.gets.Inc()
	body, err := e.s.bucket.GetRange(ctx, e.key(), off, end-off)
	if err != nil {
		return err
	}
	defer body.Close()
	// A driver may be blocked in Read when the other GET wins.
	defer context.AfterFunc(ctx, func() { body.Close() })()
	var started time.Time
	at := off
	for i, f := range frames {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fr := f.frame()
		if gap := fr.Offset - at; gap > 0 {
			if _, err := io.CopyN(io.Discard, body, gap); err != nil {
				return short(err)
			}
		}
		data := e.s.buffers.get(int(fr.Size))[:fr.Size]
		if _, err := io.ReadFull(body, data); err != nil {
			return short(err)
		}
		at = fr.Offset + fr.Size
		if sum := pack.CRC(data); sum != fr.Checksum {
			return e.damaged(f, sum)
		}
		e.s.m.getBytes.AddInt64(fr.Size)
		if f.fill(data, nil) {
			e.progress.Add(1)
		} else {
			e.s.buffers.put(data) // the other GET was first
		}
		if i == 0 {
			started = e.s.o.Now()
		}
	}
	e.s.peers.record(started.Sub(begin), e.s.o.Now().Sub(started), at-off-frames[0].frame().Size)
	return nil
}

func (e *extent) damaged(f *fetched, sum uint32) error {
	fr := f.frame()
	return &pack.CorruptError{
		Key: e.key(), Offset: fr.Offset, What: fmt.Sprintf("CRC-32C of the %d bytes of frame %d", fr.Size, f.n),
		Expected: fmt.Sprintf("%08x", fr.Checksum), Found: fmt.Sprintf("%08x", sum),
	}
}

// short makes sure that the end of a body is not taken for the end of anything.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// verify compares a decoded chunk with its id.
func verify(v *packView, f int, i uint32, plain []byte, id chunk.ID) error {
	if got := chunk.Sum(plain); !bytes.Equal(got[:], id[:]) {
		return &pack.CorruptError{
			Key: v.key(), Offset: v.Frames[f].Offset, What: fmt.Sprintf("SHA-256 of chunk %d in frame %d", i, f),
			Expected: id.String(), Found: got.String(),
		}
	}
	return nil
}
