package chunkstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
)

// Open plans a served NAR. Everything is resolved before it returns: an error
// afterwards can only come from the bucket, or from damage. The value may be an
// *os.File, a resident copy, so that a server can leave the copying to the system.
//
// A read that fails after it began must not be passed off as a short NAR: the
// caller breaks the connection. The reader lives at most as long as ctx; until it is
// closed r must not change.
func (s *Store) Open(ctx context.Context, r *chunk.Recipe) (io.ReadSeekCloser, error) {
	var etag string
	if s.resident != nil {
		etag = etagOf(r)
		if f := s.resident.open(etag, r.Served.Size); f != nil {
			return f, nil
		}
	}
	p, err := newPlan(ctx, s.layout, r)
	if err != nil {
		return nil, err
	}
	rd := &reader{ctx: ctx, s: s, plan: p, recipe: r, planner: newPlan}
	if s.resident != nil {
		rd.etag = etag
	}
	return rd, nil
}

// Plain returns the decoded NAR. Every chunk is checked against its id before its
// bytes are handed out, and at the end the whole against the NAR hash: only if
// that is right the reader ends with io.EOF.
func (s *Store) Plain(ctx context.Context, r *chunk.Recipe) (io.ReadCloser, error) {
	p, err := newPlainPlan(ctx, s.layout, r)
	if err != nil {
		return nil, err
	}
	return &plainReader{reader: reader{ctx: ctx, s: s, plan: p, recipe: r, planner: newPlainPlan}, want: r.NarHash, hash: sha256.New()}, nil
}

// OpenPlain returns the decoded NAR to read anywhere: only the chunks that are read are
// fetched, and each is checked against its id. Nobody compares the whole with the NAR hash.
func (s *Store) OpenPlain(ctx context.Context, r *chunk.Recipe) (io.ReadSeekCloser, error) {
	p, err := newPlainPlan(ctx, s.layout, r)
	if err != nil {
		return nil, err
	}
	return &reader{ctx: ctx, s: s, plan: p, recipe: r, planner: newPlainPlan}, nil
}

// reader is a NAR put together from the bucket while it is read.
type reader struct {
	ctx  context.Context //nolint:containedctx // the life of the reader
	s    *Store
	plan *plan
	// recipe and planner make the plan again when packs have moved.
	recipe  *chunk.Recipe
	planner func(context.Context, layoutFunc, *chunk.Recipe) (*plan, error)
	moved   int64  // pos when it was made again last, plus one
	etag    string // under which it may become a resident copy; empty = not at all

	pos    int64
	rest   []byte // of the current unit, from pos on
	pipe   *pipeline
	tee    *admission // while it was read from the start without a gap
	err    error      // final
	closed bool
}

var errClosed = errors.New("reader is closed")

// Read implements io.Reader.
func (r *reader) Read(dst []byte) (int, error) {
	switch {
	case r.closed:
		return 0, errClosed
	case r.err != nil:
		return 0, r.err
	case r.pos >= r.plan.size:
		return 0, io.EOF
	case len(dst) == 0:
		return 0, nil
	}
	for len(r.rest) == 0 {
		if err := r.advance(); err != nil {
			if (errors.Is(err, blob.ErrNotExist) || damaged(err)) && r.replan() {
				continue
			}
			r.err = err
			r.stop()
			return 0, err
		}
	}
	n := copy(dst, r.rest)
	r.rest = r.rest[n:]
	r.pos += int64(n)
	if r.pos == r.plan.size {
		r.finish()
	}
	return n, nil
}

// advance makes rest the bytes at pos.
func (r *reader) advance() error {
	skip := int64(0)
	if r.pipe == nil {
		cur, at := r.plan.seek(r.pos)
		skip = r.pos - at
		r.pipe = newPipeline(r.ctx, r.s, cur)
		if r.pos == 0 && r.etag != "" && r.tee == nil {
			r.tee = r.s.resident.begin(r.etag)
		}
	}
	data, err := r.pipe.next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read nar at %d of %d: %w", r.pos, r.plan.size, err)
	}
	if r.tee != nil && !r.tee.write(data) {
		r.tee = nil
	}
	r.rest = data[skip:]
	return nil
}

// replan makes the plan again from what the directory says now, because an object
// was not there, or is damaged: its packs may have moved. It reports whether to read on: not if that
// was tried at this place before, nor if what is served would be anything else.
func (r *reader) replan() bool {
	if r.moved == r.pos+1 {
		return false
	}
	r.moved = r.pos + 1
	for v := range r.plan.views() {
		r.s.layouts.remove(v.ID)
	}
	p, err := r.planner(r.ctx, r.s.layout, r.recipe)
	if err != nil || p.size != r.plan.size {
		return false
	}
	r.s.m.moves.Inc()
	r.plan = p
	r.pipe.close()
	r.pipe = nil
	return true
}

// finish is called when the last byte was handed out.
func (r *reader) finish() {
	if r.tee != nil {
		r.tee.admit(r.etag, r.plan.size)
		r.tee = nil
	}
	r.stop()
}

func (r *reader) stop() {
	if r.pipe != nil {
		r.pipe.close()
		r.pipe = nil
	}
	if r.tee != nil {
		r.tee.drop()
		r.tee = nil
	}
	r.rest = nil
}

// Seek implements io.Seeker. It costs nothing until the next Read.
func (r *reader) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		off += r.pos
	case io.SeekEnd:
		off += r.plan.size
	default:
		return 0, fmt.Errorf("seek in nar: whence %d", whence)
	}
	if r.closed {
		return 0, errClosed
	}
	if off < 0 {
		return 0, fmt.Errorf("seek in nar: offset %d", off)
	}
	if off != r.pos {
		r.stop()
		r.pos = off
	}
	return off, nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	r.closed = true
	r.stop()
	return nil
}

// plainReader is a decoded NAR.
type plainReader struct {
	reader
	want [32]byte
	hash hash.Hash
	done bool
}

// Read implements io.Reader.
func (r *plainReader) Read(dst []byte) (int, error) {
	n, err := r.reader.Read(dst)
	r.hash.Write(dst[:n])
	if err == io.EOF && !r.done { //nolint:errorlint // only the bare one is the end
		if got := [32]byte(r.hash.Sum(nil)); got != r.want {
			r.err = fmt.Errorf("read nar: its SHA-256 is %x, want %x", got, r.want)
			return n, r.err
		}
		r.done = true
	}
	return n, err
}

// Seek hides that of reader: the hash needs all bytes in order.
func (r *plainReader) Seek(int64, int) (int64, error) {
	return 0, errors.New("seek in a decoded nar")
}
