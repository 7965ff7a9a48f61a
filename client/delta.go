package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/httpapi/wire"
)

const (
	// frameWindow is the zstd window of frames. The server takes none with a larger one.
	frameWindow = 1 << 20
	// deltaCutters paths are read at a time; deltaAskers queries are under way.
	deltaCutters, deltaAskers = 4, 3
	// deltaBatches are under way at most. That fills any line that a builder has, and
	// leaves room on the server for others.
	deltaBatches = 6
	// deltaTries is how often the chunks of a path may be gone by the time it is committed.
	deltaTries = 4
	// leastSegment and leastBatch are how small requests may become when a proxy refuses
	// larger ones.
	leastSegment, leastBatch = 256 << 10, 64 << 10
	// mostReferring segments of a batch have chunks that the server has to read, one
	// segment after another: with a distant bucket that is some seconds.
	mostReferring = 64
)

// delta is a push by the delta protocol: docs/protocol.md says what is sent.
//
// Paths go through stages, each with goroutines of its own: cut (read from the store,
// hashed, cut into chunks and segments), ask (which chunks are missing), encode, send,
// commit. One goroutine, that of run, decides what is sent and committed when, and keeps
// the state of every path; the stages report to it through events. What is in hand is
// bounded by memory, which a segment takes when it is cut and gives back when it is
// acknowledged.
type delta struct {
	p       *push
	info    wire.DeltaInfo
	key     chunk.ProofKey
	profile chunk.Profile
	enc     *zstd.Encoder
	memory  room
	claims  claims

	segmentBytes atomic.Int64 // these shrink when a proxy refuses longer requests
	queryChunks  atomic.Int64
	batchBytes   int64 // of run
	commitPaths  int   // of run: of the next commit
	mostPaths    int   // of run: that get through
	joinReceipts atomic.Int64
	mostReceipts atomic.Int64 // of a path in a commit; of more, some are joined first

	toCut    chan *attempt
	toAsk    chan *segment
	toEncode chan *segment
	events   chan any

	// What follows belongs to run.
	parcels    []*parcel
	todo       []*attempt // to be cut
	pending    []*segment // to be sent
	pendingFor time.Time  // since when
	running    int        // batches
	committing bool
	left       int // parcels without an outcome
	cutting    int // attempts
	came, went int // segments out of that stage, of attempts that have ended; and out of the two behind it
	idle       []int
	absent     map[string]bool // references that the cache lacks, by base name
}

// parcel is a path on its way.
type parcel struct {
	path   path
	refs   []*parcel
	state  parcelState
	worker int // by which progress shows it, or -1
	tries  int // attempts that ended because chunks were gone
	began  time.Time
	shown  int64
	now    *attempt
	sent   int64
}

type parcelState uint8

const (
	parcelOpen parcelState = iota
	parcelComplete
	parcelCommitting
	parcelDone
	parcelFailed // or skipped
)

// attempt is one reading of a path's NAR.
type attempt struct {
	parcel   *parcel
	ctx      context.Context //nolint:containedctx // ends with the attempt
	cancel   context.CancelFunc
	total    int // segments; -1 while it is being cut
	receipts [][]byte
	have     int
	fresh    int64 // plain bytes of chunks that were missing
	packed   int64 // these, compressed
	dead     bool
}

// segment is a stretch of a NAR.
type segment struct {
	attempt *attempt
	n       int
	from    chunk.SHAState
	chunks  []piece
	plain   []byte // until it is encoded
	size    int64
	body    []byte
	fresh   int64
	packed  int64
	refers  bool       // it has chunks that the server has
	held    int64      // of the memory
	deps    []*segment // whose chunks it refers to
	waits   int        // of run: how many of them are not acknowledged
	waiting []*segment // of run: segments that wait for this one
	ended   segmentEnd // of run
	alone   bool       // of run: to be sent in a batch of its own
}

type segmentEnd uint8

const (
	segmentUnder segmentEnd = iota
	segmentAcked
	segmentLost
)

// piece is a chunk of a segment.
type piece struct {
	ref     chunk.Ref
	size    int
	missing bool
}

// deltaInfo asks how to push, and returns false if the server has no delta protocol that
// this client speaks, or there is nothing to push.
func (p *push) deltaInfo(ctx context.Context, cache *Cache, paths int) (wire.DeltaInfo, bool, error) {
	if paths == 0 || p.o.Whole || cache.Name != "" && !slices.Contains(cache.Delta, wire.DeltaVersion) {
		return wire.DeltaInfo{}, false, nil
	}
	var info wire.DeltaInfo
	query := url.Values{wire.DeltaVersionParam: {fmt.Sprint(wire.DeltaVersion)}}
	err := p.c.call(ctx, http.MethodGet, deltaPath(p.o.Cache, "", query), nil, &info)
	status, refused := errors.AsType[*StatusError](err)
	switch {
	case refused && cache.Name == "" && status.Final():
		return info, false, nil // the old call will say what is wrong, if anything is
	case refused && (status.Status == http.StatusNotFound && status.Name != NoSuchCache || status.Name == wire.ErrorUnsupportedVersion):
		p.ev.note(fmt.Sprintf("the server is said to take chunks, but whole NARs are uploaded, for it answered %d: something between here and there, or a server of another version, does not know the calls", status.Status))
		return info, false, nil
	}
	return info, err == nil, err
}

func deltaPath(cache, call string, query url.Values) string {
	path := "_api/v1/delta/" + url.PathEscape(cache)
	if call != "" {
		path += "/" + call
	}
	return path + "?" + query.Encode()
}

// otherProofKey reports whether the server no longer knows the proof key it gave out.
func otherProofKey(err error) bool {
	status, ok := errors.AsType[*StatusError](err)
	return ok && status.Name == wire.ErrorProofKey
}

// newDelta checks what the server says of its limits.
func newDelta(p *push, info wire.DeltaInfo) (*delta, error) {
	d := &delta{p: p, info: info, absent: map[string]bool{}}
	var err error
	if d.profile, err = chunk.ParseProfile(info.Chunking); err != nil {
		return nil, fmt.Errorf("push to cache %q: the server cuts in a way that this version of celler does not know: %w", p.o.Cache, err)
	}
	if len(info.ProofKey) != len(d.key) {
		return nil, fmt.Errorf("push to cache %q: the server's proof key has %d bytes, want %d", p.o.Cache, len(info.ProofKey), len(d.key))
	}
	copy(d.key[:], info.ProofKey)
	if info.FrameBytes < d.profile.Max || info.BatchBytes < leastBatch || info.SegmentBytes < int64(d.profile.Max) || info.BatchSegments < 1 || info.BatchChunks < 1 || info.QueryChunks < 1 || info.CommitPaths < 1 {
		return nil, fmt.Errorf("push to cache %q: the server takes frames of %d, segments of %d and batches of %d bytes, which is too little for chunks of up to %d", p.o.Cache, info.FrameBytes, info.SegmentBytes, info.BatchBytes, d.profile.Max)
	}
	d.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(frameWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	d.memory = newRoom(p.c.memory)
	d.segmentBytes.Store(min(info.SegmentBytes, deltaMemory/8))
	d.queryChunks.Store(int64(info.QueryChunks))
	d.joinReceipts.Store(256)
	d.mostReceipts.Store(16)
	d.batchBytes, d.commitPaths, d.mostPaths = info.BatchBytes, info.CommitPaths, info.CommitPaths
	d.claims.by = make(map[chunk.Name]*segment)
	d.toCut, d.toAsk, d.toEncode = make(chan *attempt), make(chan *segment, 512), make(chan *segment, 16)
	d.events = make(chan any, 64)
	return d, nil
}

// uploadDelta pushes paths, references first.
func (p *push) uploadDelta(ctx context.Context, info wire.DeltaInfo, paths []path) error {
	d, err := newDelta(p, info)
	if err != nil {
		return err
	}
	defer d.enc.Close()
	defer d.memory.close()
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	for range deltaCutters {
		wg.Go(func() { d.cutter(ctx) })
	}
	for range deltaAskers {
		wg.Go(func() { d.asker(ctx) })
	}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() { d.encoder(ctx) })
	}
	for w := p.limiter.workers() - 1; w >= 0; w-- {
		d.idle = append(d.idle, w)
	}
	d.link(ctx, paths)
	err = d.run(ctx, &wg, cancel)
	if err == nil && p.withdrawn(d.absent) {
		return errWithdrawn
	}
	d.noteAbsent()
	return err
}

// link makes parcels of paths.
func (d *delta) link(ctx context.Context, paths []path) {
	byPath := make(map[string]*parcel, len(paths))
	for _, path := range paths {
		pc := &parcel{path: path, worker: -1}
		for _, ref := range path.references {
			if on := byPath[ref.Base()]; on != nil {
				pc.refs = append(pc.refs, on)
			}
		}
		byPath[path.storePath.Base()] = pc
		d.parcels = append(d.parcels, pc)
		d.again(ctx, pc)
	}
	d.left = len(d.parcels)
}

// again begins an attempt.
func (d *delta) again(ctx context.Context, pc *parcel) {
	if old := pc.now; old != nil {
		old.dead = true
		old.cancel()
	}
	if pc.worker >= 0 {
		d.p.ev.sent(pc.worker, -pc.shown)
	}
	pc.shown, pc.state = 0, parcelOpen
	a := &attempt{parcel: pc, total: -1}
	a.ctx, a.cancel = context.WithCancel(ctx)
	pc.now = a
	d.todo = append(d.todo, a)
}

// post hands an event to run.
func (d *delta) post(ctx context.Context, ev any) {
	select {
	case d.events <- ev:
	case <-ctx.Done():
	}
}

// claims are the chunks that segments of this push are about to bring, so that no other
// segment brings them as well. What was brought stays claimed until every query has ended
// that may have been answered before it was there.
type claims struct {
	mu      sync.Mutex // guards what follows
	by      map[chunk.Name]*segment
	queries int   // begun so far
	active  []int // numbers of those that have not ended
	brought []broughtClaims
}

// broughtClaims can be dropped when the queries up to last have ended.
type broughtClaims struct {
	seg   *segment
	names []chunk.Name
	last  int
}

// begin notes a query, and returns its number.
func (c *claims) begin() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queries++
	c.active = append(c.active, c.queries)
	return c.queries
}

// end notes that all claims which follow from a query were made.
func (c *claims) end(query int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active = slices.DeleteFunc(c.active, func(n int) bool { return n == query })
	c.sweep()
}

func (c *claims) sweep() {
	c.brought = slices.DeleteFunc(c.brought, func(b broughtClaims) bool {
		if len(c.active) > 0 && slices.Min(c.active) <= b.last {
			return false
		}
		for _, name := range b.names {
			if c.by[name] == b.seg {
				delete(c.by, name)
			}
		}
		return true
	})
}

// make notes what seg brings, and makes it depend on those that bring the rest.
func (c *claims) make(seg *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range seg.chunks {
		p := &seg.chunks[i]
		if !p.missing {
			continue
		}
		switch other := c.by[p.ref.Name]; {
		case other == nil:
			c.by[p.ref.Name] = seg
		case other != seg:
			p.missing = false
			if !slices.Contains(seg.deps, other) {
				seg.deps = append(seg.deps, other)
			}
		}
	}
}

// drop ends the claims of seg: the server has its chunks, or will not get them from it.
func (c *claims) drop(seg *segment, brought bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := broughtClaims{seg: seg}
	if brought {
		b.last = c.queries
	}
	for _, p := range seg.chunks {
		b.names = append(b.names, p.ref.Name)
	}
	c.brought = append(c.brought, b)
	c.sweep()
}
