package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// What the stages tell run.
type (
	cutDone struct { // an attempt was cut into so many segments, or could not be
		attempt  *attempt
		segments int
		err      error
	}
	encoded struct{ seg *segment } // a segment is ready to be sent
	askFail struct {               // nobody knows what is missing of these
		segs []*segment
		err  error
	}
	batchDone struct {
		segs    []*segment
		results []wire.SegmentResult
		bytes   int
		err     error
	}
	commitDone struct {
		parcels []*parcel
		result  wire.CommitResult
		pins    map[*parcel]*Pin
		err     error
	}
)

// cutter reads NARs.
func (d *delta) cutter(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-d.toCut:
			n, err := d.cut(ctx, a)
			d.post(ctx, cutDone{a, n, err})
		}
	}
}

// cut reads the NAR of a path and passes it on in segments.
func (d *delta) cut(ctx context.Context, a *attempt) (segments int, err error) {
	path := &a.parcel.path
	dump := d.p.dump(a.ctx, path)
	defer dump.stop()
	limit := int(d.segmentBytes.Load())
	var hash chunk.SHAState // of what is in segments
	var rest []byte         // read, and not in a segment yet
	left := path.narSize
	for eof := false; !eof || len(rest) > 0; segments++ {
		room := int64(limit + d.profile.Max)
		if most := int64(len(rest)) + left + 1; most < room {
			room = most
		}
		if err := d.memory.Acquire(a.ctx, room); err != nil {
			return segments, err
		}
		plain := append(make([]byte, 0, room), rest...)
		if !eof {
			n, err := io.ReadFull(dump, plain[len(plain):cap(plain)])
			plain, left = plain[:len(plain)+n], left-int64(n)
			eof = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
			if left < 0 {
				d.memory.Release(room)
				return segments, &DamagedError{path.storePath, fmt.Errorf("NAR size expected %d, found more", path.narSize)}
			}
			if err != nil && !eof {
				d.memory.Release(room)
				dump.stop()
				if local := dump.problem(path); local != nil { // which is what err came from
					return segments, local
				}
				return segments, err
			}
		}
		seg := &segment{attempt: a, n: segments, held: room, from: hash}
		size := d.cutSegment(seg, plain, limit, eof, &hash)
		seg.plain, seg.size = plain[:size], int64(size)
		rest = append(rest[:0:0], plain[size:]...)
		select {
		case d.toAsk <- seg:
		case <-ctx.Done():
			return segments, ctx.Err()
		}
	}
	dump.stop()
	if err := dump.problem(path); err != nil {
		return segments, err
	}
	if got := nix.SHA256Hash(hash.Sum()); got != path.narHash {
		return segments, &DamagedError{path.storePath, fmt.Errorf("NAR hash expected %s, found %s", path.narHash, got)}
	}
	return segments, nil
}

// cutSegment cuts as much of plain into chunks as a segment takes, hashes that, and
// returns its length.
func (d *delta) cutSegment(seg *segment, plain []byte, limit int, eof bool, hash *chunk.SHAState) int {
	size := 0
	var parts [][]byte
	for size < len(plain) && (eof || len(plain)-size >= d.profile.Max) {
		n := d.profile.Cut(plain[size:])
		if size > 0 && size+n > limit {
			break
		}
		parts = append(parts, plain[size:size+n])
		size += n
	}
	ids, proofs := d.key.SumAll(parts, hash)
	for i, id := range ids {
		seg.chunks = append(seg.chunks, piece{ref: chunk.Ref{Name: id.Name(), Proof: proofs[i]}, size: len(parts[i])})
	}
	return size
}

// askLinger is how long a query waits for company.
const askLinger = 5 * time.Millisecond

// asker finds out what is missing.
func (d *delta) asker(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-d.toAsk:
			segs := d.company(ctx, first)
			query := d.claims.begin()
			if err := d.ask(ctx, segs); err != nil {
				d.claims.end(query)
				d.post(ctx, askFail{segs, err})
				continue
			}
			for _, seg := range segs {
				d.claims.make(seg)
				d.restore(seg)
			}
			d.claims.end(query)
			for _, seg := range segs {
				select {
				case d.toEncode <- seg:
				case <-ctx.Done():
					return
				}
			}
		}
	}
}

// company gathers segments for one query.
func (d *delta) company(ctx context.Context, first *segment) []*segment {
	segs, chunks := []*segment{first}, len(first.chunks)
	timer := time.NewTimer(askLinger)
	defer timer.Stop()
	for int64(chunks) < d.queryChunks.Load()/2 {
		select {
		case seg := <-d.toAsk:
			segs, chunks = append(segs, seg), chunks+len(seg.chunks)
		case <-timer.C:
			return segs
		case <-ctx.Done():
			return segs
		}
	}
	return segs
}

func (d *delta) query() url.Values {
	return url.Values{wire.DeltaVersionParam: {fmt.Sprint(d.info.Version)}, wire.DeltaProofKeyParam: {d.info.ProofKeyName}}
}

// ask marks the missing chunks of segs, in as many requests as it takes.
func (d *delta) ask(ctx context.Context, segs []*segment) error {
	var refs []chunk.Ref
	var pieces []*piece
	for _, seg := range segs {
		for i := range seg.chunks {
			refs, pieces = append(refs, seg.chunks[i].ref), append(pieces, &seg.chunks[i])
		}
	}
	for len(refs) > 0 {
		n := min(len(refs), int(d.queryChunks.Load()))
		body := wire.AppendRefs(nil, refs[:n])
		var missing wire.Bitmap
		err := d.p.c.retrying(ctx, &d.p.budget, d.retried(segs[0].attempt.parcel), func(ctx context.Context, _ int) error {
			text, err := d.p.c.binary(ctx, deltaPath(d.p.o.Cache, "missing", d.query()), wire.DeltaContentType, body)
			missing = text
			return err
		})
		if tooLarge(err) && n > leastBatch/chunk.RefBytes {
			d.queryChunks.Store(int64(n / 2))
			continue
		}
		if err != nil {
			return err
		}
		if err := missing.Check(n); err != nil {
			return fmt.Errorf("ask cache %q for missing chunks: %w", d.p.o.Cache, err)
		}
		for i := range n {
			pieces[i].missing = missing.Has(i)
		}
		refs, pieces = refs[n:], pieces[n:]
	}
	return nil
}

func tooLarge(err error) bool {
	status, ok := errors.AsType[*StatusError](err)
	return ok && status.Status == http.StatusRequestEntityTooLarge
}

// restore makes missing what is known but stands between missing chunks and is short:
// readers pay for every break.
func (d *delta) restore(seg *segment) {
	last := -1 // missing chunk
	known := 0
	for i := range seg.chunks {
		if !seg.chunks[i].missing {
			known += seg.chunks[i].size
			continue
		}
		if last >= 0 && last < i-1 && known < d.info.RestoreBytes {
			for k := last + 1; k < i; k++ {
				seg.chunks[k].missing = true
			}
		}
		last, known = i, 0
	}
}

// encoder makes of segments what is sent.
func (d *delta) encoder(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case seg := <-d.toEncode:
			if !d.p.o.DryRun {
				d.encode(seg)
			}
			seg.plain = nil
			for _, c := range seg.chunks {
				if c.missing {
					seg.fresh += int64(c.size)
				}
			}
			if spare := seg.held - int64(len(seg.body)); spare > 0 {
				d.memory.Release(spare)
				seg.held -= spare
			}
			d.post(ctx, encoded{seg})
		}
	}
}

func (d *delta) encode(seg *segment) {
	var names []chunk.Name
	var sizes []uint32
	var refs []chunk.Ref
	body := wire.AppendSegment(nil, seg.from)
	at, frame := 0, 0
	flush := func() {
		if len(names) > 0 {
			packed := d.enc.EncodeAll(seg.plain[frame:at], nil)
			body = wire.AppendFrame(body, names, sizes, packed)
			seg.packed += int64(len(packed))
		}
		if len(refs) > 0 {
			body = wire.AppendKnown(body, refs)
			seg.refers = true
		}
		names, sizes, refs, frame = names[:0], sizes[:0], refs[:0], at
	}
	for _, c := range seg.chunks {
		if c.missing && (len(refs) > 0 || at-frame+c.size > d.info.FrameBytes) || !c.missing && len(names) > 0 {
			flush()
		}
		if c.missing {
			names, sizes = append(names, c.ref.Name), append(sizes, uint32(c.size))
		} else {
			refs = append(refs, c.ref)
		}
		at += c.size
	}
	flush()
	seg.body = wire.AppendSegmentEnd(body)
}

// retried tells of a request that is repeated, in the name of a path.
func (d *delta) retried(pc *parcel) retryFunc {
	return func(n int, wait time.Duration, err error) {
		if status, ok := errors.AsType[*StatusError](err); ok && status.overload() {
			d.p.limiter.overloaded(d.p.c.now())
		}
		d.p.ev.retry(-1, pc.path.storePath, n, wait, err)
	}
}
