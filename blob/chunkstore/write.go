package chunkstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/celler/celler/blob/chunk"
)

const (
	// cutBytes are read, cut, hashed and looked up at a time.
	cutBytes = 512 << 10

	// smallNar is what a Write may read before it needs the memory of a large one.
	smallNar = 128 << 10

	// groupBytes is how many compressed bytes of one NAR are put into a pack
	// together, so that NARs written at the same time do not interleave frame by
	// frame, which would make a GET of every frame.
	groupBytes = 1 << 20

	// extraAfter is how long a Write waits for the memory of a large one before it
	// takes some beyond the budget. Slots are held for as long as clients send, and
	// a few slow ones must not keep all others waiting until they time out.
	extraAfter = time.Second
)

// Result tells what a Write did.
type Result struct {
	Recipe      chunk.Recipe
	Packs       []chunk.NewPack // durable, not yet known: commit them together with the recipe
	PlainBytes  int64           // length of the NAR
	NewBytes    int64           // of it, in chunks that were not known
	StoredBytes int64           // compressed bytes put into packs for it, chunks stored again included
	Chunks      int
	NewChunks   int
}

// Write cuts, hashes, deduplicates, encodes and uploads one NAR read from r. When
// it returns, every chunk is durable. Packs that got full were committed through
// the Directory; the others are in Result.Packs and become known together with
// the path, or never. Nothing is promised after an error: what was uploaded by
// then is garbage that nobody refers to.
//
// Write does not look into the NAR. The caller compares Result.Recipe.NarHash
// with what was announced before it commits anything.
func (s *Store) Write(ctx context.Context, r io.Reader) (Result, error) {
	w := &writer{s: s}
	defer w.close()
	if err := w.run(ctx, r); err != nil {
		return Result{}, fmt.Errorf("write nar: %w", err)
	}
	return w.res, nil
}

// writer is one Write.
type writer struct {
	s     *Store
	epoch uint32 // when the Write began
	res   Result
	held  *semaphore.Weighted // the pool its slot is from

	narHash hash.Hash
	buf     []byte // read and not yet cut

	split splitter
	out   output

	fileHash hash.Hash  // of the served form; nil once not all of it is at hand
	tee      *admission // its resident copy, likewise
}

func (w *writer) run(ctx context.Context, r io.Reader) error {
	s := w.s
	// What small NARs consist of is read before any slot is taken, so that no
	// slot of theirs is held by a client that sends slowly or not at all.
	w.buf = make([]byte, 0, smallNar)
	eof, err := w.fill(r)
	if err != nil {
		return err
	}
	if err := w.acquire(ctx, s.small); err != nil {
		return err
	}
	if !eof {
		if err := w.grow(ctx); err != nil {
			return err
		}
	}
	if w.epoch, err = s.dir.UploadEpoch(ctx); err != nil {
		return fmt.Errorf("look up upload epoch: %w", err)
	}
	w.narHash, w.fileHash = sha256.New(), sha256.New()
	if s.resident != nil {
		w.tee = s.resident.begin("")
	}
	w.out = output{w: w}
	w.split = splitter{s: s, out: &w.out, own: make(map[chunk.ID]place)}
	for {
		if err := w.cut(ctx, eof); err != nil {
			return err
		}
		if eof {
			break
		}
		if eof, err = w.fill(r); err != nil {
			return err
		}
	}
	if err := w.split.end(ctx); err != nil {
		return err
	}
	if err := w.out.finish(ctx); err != nil {
		return err
	}
	w.release() // what is left to wait for needs no memory of ours
	return w.seal(ctx)
}

func (w *writer) acquire(ctx context.Context, pool *semaphore.Weighted) error {
	if err := pool.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait for memory: %w", err)
	}
	w.held = pool
	return nil
}

func (w *writer) release() {
	if w.held != nil {
		w.held.Release(1)
		w.held = nil
	}
	w.buf = nil
}

// grow turns the Write into a large one. It keeps its small slot while it waits:
// large ones never wait for a small slot, so that ends.
func (w *writer) grow(ctx context.Context) error {
	small := w.held
	soon, cancel := context.WithTimeout(ctx, extraAfter)
	err := w.acquire(soon, w.s.large)
	cancel()
	if err != nil {
		if err := w.acquire(ctx, w.s.extra); err != nil {
			return err
		}
	}
	small.Release(1)
	buf := make([]byte, len(w.buf), cutBytes+w.s.o.Profile.Max)
	copy(buf, w.buf)
	w.buf = buf
	return nil
}

func (w *writer) close() {
	w.out.drop()
	w.release()
	if w.tee != nil {
		w.tee.drop()
	}
}

// fill reads until the buffer is full or r ends.
func (w *writer) fill(r io.Reader) (eof bool, err error) {
	n := len(w.buf)
	for idle := 0; len(w.buf) < cap(w.buf); {
		m, err := r.Read(w.buf[len(w.buf):cap(w.buf)])
		w.buf = w.buf[:len(w.buf)+m]
		if err == io.EOF { //nolint:errorlint // only the bare one is the end
			eof = true
			break
		}
		if err != nil {
			return false, fmt.Errorf("read its byte %d: %w", w.res.PlainBytes+int64(len(w.buf)-n), err)
		}
		if m > 0 {
			idle = 0
		} else if idle++; idle > 100 {
			return false, fmt.Errorf("read its byte %d: %w", w.res.PlainBytes+int64(len(w.buf)-n), io.ErrNoProgress)
		}
	}
	w.res.PlainBytes += int64(len(w.buf) - n)
	return eof, nil
}

// cut takes whole chunks off the buffer and passes them on. Before the end it
// leaves as much as may still belong to an unfinished chunk.
func (w *writer) cut(ctx context.Context, eof bool) error {
	profile := w.s.o.Profile
	var ids []chunk.ID
	var proofs []chunk.Proof
	var parts [][]byte
	rest := w.buf
	for len(rest) > 0 && (eof || len(rest) >= profile.Max) {
		n := profile.Cut(rest)
		parts = append(parts, rest[:n])
		rest = rest[n:]
	}
	cut := w.buf[:len(w.buf)-len(rest)]
	w.hash(cut, func() {
		ids, proofs = make([]chunk.ID, len(parts)), make([]chunk.Proof, len(parts))
		for i, p := range parts {
			ids[i], proofs[i] = w.s.o.ProofKey.Sum(p)
		}
	})
	if len(parts) > 0 {
		places, known, err := w.lookup(ctx, ids, parts)
		if err != nil {
			return err
		}
		for i, id := range ids {
			if err := w.split.chunk(ctx, piecePart{id: id, proof: proofs[i], data: parts[i], at: places[i]}, known[i]); err != nil {
				return err
			}
		}
	}
	w.res.Chunks += len(parts)
	w.buf = w.buf[:copy(w.buf, rest)]
	return nil
}

// hash adds p to the hash of the NAR while other runs.
func (w *writer) hash(p []byte, other func()) {
	if len(p) <= smallNar {
		w.narHash.Write(p)
		other()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { w.narHash.Write(p) })
	other()
	wg.Wait()
}

// lookup asks the directory, and then the packs it does not know yet.
func (w *writer) lookup(ctx context.Context, ids []chunk.ID, parts [][]byte) ([]place, []bool, error) {
	locations, known, err := w.s.dir.LookupChunks(ctx, ids)
	if err != nil {
		return nil, nil, fmt.Errorf("look up %d chunks: %w", len(ids), err)
	}
	if len(locations) != len(ids) || len(known) != len(ids) {
		return nil, nil, fmt.Errorf("look up %d chunks: got %d and %d answers", len(ids), len(locations), len(known))
	}
	places := make([]place, len(ids))
	for i, at := range locations {
		if !known[i] {
			continue
		}
		v, err := w.s.layout(ctx, at.Pack)
		if errors.Is(err, chunk.ErrNoPack) {
			known[i] = false // collected since we asked
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if int(at.Index) < len(v.Sizes) && v.Sizes[at.Index] == 0 {
			known[i] = false // likewise
			continue
		}
		if int(at.Index) >= len(v.Sizes) || int(v.Sizes[at.Index]) != len(parts[i]) {
			return nil, nil, fmt.Errorf("chunk %v of %d bytes is said to be number %d of pack %v, which has none such", ids[i], len(parts[i]), at.Index, at.Pack)
		}
		places[i] = place{view: v, index: at.Index}
	}
	w.s.packer.find(ids, known, places, w.epoch)
	return places, known, nil
}

// seal waits until everything is durable and completes the result.
func (w *writer) seal(ctx context.Context) error {
	runs, err := w.out.settle(ctx)
	if err != nil {
		return err
	}
	res := &w.res
	res.Recipe.Size = res.PlainBytes
	res.Recipe.NarHash = [32]byte(w.narHash.Sum(nil))
	res.Recipe.Runs = runs
	res.Packs = w.out.newPacks()
	if err := w.check(ctx); err != nil {
		return err
	}
	w.count()
	if w.fileHash != nil {
		res.Recipe.Served.FileHash = [32]byte(w.fileHash.Sum(nil))
	}
	if w.tee != nil {
		w.tee.admit(etagOf(&res.Recipe), res.Recipe.Served.Size)
		w.tee = nil
	}
	return nil
}

// count adds what was done to the metrics.
func (w *writer) count() {
	w.s.m.plain.AddInt64(w.res.PlainBytes)
	w.s.m.fresh.AddInt64(w.res.NewBytes)
	w.s.m.stored.AddInt64(w.res.StoredBytes)
}

// check plans the recipe as a reader will, which gives the length of the served
// form, and compares: if Write and the planner ever disagreed about what passes
// as it is, the NAR could not be served, and it is better to fail the push.
func (w *writer) check(ctx context.Context) error {
	ours := make(map[chunk.PackID]*packView, len(w.out.used))
	for _, o := range w.out.used {
		ours[o.view.ID] = o.view
	}
	r := &w.res.Recipe
	p, err := newDraft(ctx, func(ctx context.Context, id chunk.PackID) (*packView, error) {
		if v, ok := ours[id]; ok {
			return v, nil
		}
		return w.s.layout(ctx, id)
	}, r)
	if err != nil {
		return err
	}
	var plains []int
	for _, pc := range p.pieces {
		if pc.view == nil {
			plains = append(plains, pc.plain)
		}
	}
	if !slices.Equal(plains, w.out.plains) {
		return fmt.Errorf("plan nar %x: %d stretches, want the %d that were encoded", r.NarHash, len(plains), len(w.out.plains))
	}
	r.Served.Size = p.size
	return nil
}
