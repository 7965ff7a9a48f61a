package httpapi

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/nix/nar"
)

// checkNar looks into a NAR whose segments came one by one: it reads what is not the
// contents of files, and passes over these. It returns the listing, if that is short.
//
// That is cheap where files are long. A NAR of many short ones would have to be read as a
// whole, which costs more than to take it in: it is given up after a few steps. Its hash is
// right, so it is what the client has; if that is no NAR, whoever substitutes it finds out.
func (s *server) checkNar(ctx context.Context, recipe *chunk.Recipe) (listing []byte, err error) {
	unlock, err := s.delta.checks.lock(ctx, recipe.NarHash)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if known, err := s.cat.HasRecipe(recipe.NarHash); known || err != nil {
		return nil, err // it was looked into when it came first
	}
	ctx, cancel := context.WithTimeout(ctx, deltaCheckTime)
	defer cancel()
	r, err := s.chunks.OpenPlain(ctx, recipe)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it was read, or the error was told
	listing, err = s.walkNar(&frugal{ReadSeeker: r, seeks: deltaCheckSeeks, bytes: deltaCheckBytes})
	if errors.Is(err, errFrugal) {
		s.metrics.deltaUnchecked.Inc()
		return nil, nil
	}
	return listing, err
}

const (
	// deltaCheckSeeks and deltaCheckBytes are how much of a NAR is looked into. A step
	// to elsewhere fetches a frame or more.
	deltaCheckSeeks = 24
	deltaCheckBytes = 1 << 20
)

var errFrugal = errors.New("reading on would cost too much")

// frugal reads a little here and there.
type frugal struct {
	io.ReadSeeker
	seeks, bytes int
}

func (f *frugal) Read(p []byte) (int, error) {
	if f.bytes <= 0 {
		return 0, errFrugal
	}
	n, err := f.ReadSeeker.Read(p)
	f.bytes -= n
	return n, err
}

// Seek implements io.Seeker.
func (f *frugal) Seek(off int64, whence int) (int64, error) {
	if f.seeks--; f.seeks < 0 {
		return 0, errFrugal
	}
	return f.ReadSeeker.Seek(off, whence)
}

// walkNar checks that r is exactly one NAR, without reading long contents, and returns its
// listing.
func (s *server) walkNar(r io.ReadSeeker) (listing []byte, err error) {
	n := nar.NewSeekReader(r)
	var list lister
	for {
		h, err := n.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return list.pack(s), nil
		}
		if err != nil {
			return nil, err
		}
		list.entry(h)
	}
}

// nameLocks let one request at a time work on what has a name. The zero value is ready.
type nameLocks struct {
	mu   sync.Mutex
	held map[[32]byte]chan struct{} // guarded by mu; closed by whoever holds the name
}

// lock waits until nobody else holds the name.
func (l *nameLocks) lock(ctx context.Context, name [32]byte) (unlock func(), err error) {
	for {
		l.mu.Lock()
		other, taken := l.held[name]
		if !taken {
			if l.held == nil {
				l.held = make(map[[32]byte]chan struct{})
			}
			mine := make(chan struct{})
			l.held[name] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, name)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
