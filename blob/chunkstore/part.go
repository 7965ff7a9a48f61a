package chunkstore

import (
	"context"
	"fmt"
	"io"
	"sort"

	"github.com/celler/celler/blob/chunk"
)

// OpenPart returns size bytes of the decoded NAR from off on, to read anywhere. Only the
// chunks of that part are fetched, and each is checked against its id.
func (s *Store) OpenPart(ctx context.Context, r *chunk.Recipe, off, size int64) (io.ReadSeekCloser, error) {
	if off < 0 || size < 0 || size > r.Size-off {
		return nil, fmt.Errorf("open %d bytes of nar %x from %d on: it has %d", size, r.NarHash, off, r.Size)
	}
	planner := func(ctx context.Context, layout layoutFunc, r *chunk.Recipe) (*plan, error) {
		p, err := newPlainPlan(ctx, layout, r)
		if err != nil {
			return nil, err
		}
		n := sort.Search(len(p.pieces), func(i int) bool { return p.pieces[i].off >= off+size })
		p.pieces = p.pieces[:n]
		p.size = 0
		if n > 0 {
			p.size = p.pieces[n-1].off + p.pieces[n-1].size
		}
		return p, nil
	}
	p, err := planner(ctx, s.layout, r)
	if err != nil {
		return nil, err
	}
	return &partReader{r: &reader{ctx: ctx, s: s, plan: p, recipe: r, planner: planner}, off: off, size: size}, nil
}

// partReader is a part of a NAR as a file of its own.
type partReader struct {
	r         *reader
	off, size int64
	pos       int64
}

// Read implements io.Reader.
func (p *partReader) Read(dst []byte) (int, error) {
	if p.pos >= p.size {
		return 0, io.EOF
	}
	if p.r.pos != p.off+p.pos {
		if _, err := p.r.Seek(p.off+p.pos, io.SeekStart); err != nil {
			return 0, err
		}
	}
	n, err := p.r.Read(dst[:min(int64(len(dst)), p.size-p.pos)])
	p.pos += int64(n)
	if err == io.EOF && p.pos < p.size { //nolint:errorlint // only the bare one is the end
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Seek implements io.Seeker.
func (p *partReader) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += p.pos
	case io.SeekEnd:
		off += p.size
	}
	if off < 0 {
		return 0, fmt.Errorf("seek in a part of a nar: offset %d", off)
	}
	p.pos = off
	return off, nil
}

// Close implements io.Closer.
func (p *partReader) Close() error { return p.r.Close() }
