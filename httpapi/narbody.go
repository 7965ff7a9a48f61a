package httpapi

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"net"
	"os"
	"sync/atomic"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nar"
)

const (
	// judgeBytes is how much is handed to the judge at a time, and judgeBuffers how
	// many such pieces may wait: half a megabyte per upload.
	judgeBytes   = 128 << 10
	judgeBuffers = 4
)

// narBody reads the NAR of an upload: exactly as many bytes as were announced, and
// io.EOF only if they are a NAR and hash to what was announced. Hash and grammar are
// worked on by a goroutine beside the reader, so that the chunk store does not wait for them.
type narBody struct {
	src  io.Reader
	size int64
	want [32]byte
	open bool // only the end of src tells the size, which is at most that, and nothing the hash

	read  int64
	err   error // sticky: io.EOF once judged good, or what is wrong
	piece []byte
	judge *judge
}

func newNarBody(src io.Reader, size int64, want [32]byte) *narBody {
	return startBody(&narBody{src: src, size: size, want: want, judge: newJudge()})
}

// newOpenBody reads a NAR of at most that many bytes of which only the end of src tells how
// many there are. What src fails with, the body fails with.
func newOpenBody(src io.Reader, most int64) *narBody {
	return startBody(&narBody{src: src, size: most, open: true, judge: newJudge()})
}

func startBody(b *narBody) *narBody {
	go b.judge.run()
	b.piece = <-b.judge.free
	return b
}

// Read implements io.Reader. The bytes it returns are not judged yet; only the io.EOF
// at the end is a verdict.
func (b *narBody) Read(p []byte) (int, error) {
	if b.err == nil && b.read == b.size && !b.open {
		b.err = b.verdict()
	}
	if b.err == nil {
		if failure := b.judge.failure.Load(); failure != nil {
			b.err = *failure
		}
	}
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.open {
		return b.readOpen(p)
	}
	p = p[:min(int64(len(p)), b.size-b.read)]
	n, err := b.src.Read(p)
	b.read += int64(n)
	b.pass(p[:n])
	if err == nil || b.read == b.size {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		b.err = shortBody(b.read, b.size)
	} else {
		b.err = bodyError(err)
	}
	return n, b.err
}

// readOpen is Read if only the end of the source tells the size.
func (b *narBody) readOpen(p []byte) (int, error) {
	n, err := b.src.Read(p)
	if int64(n) > b.size-b.read {
		b.err = tooLarge("The NAR has more than the %d bytes that this server takes.", b.size)
		return 0, b.err
	}
	b.read += int64(n)
	b.pass(p[:n])
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.err = b.verdict()
	default:
		b.err = err
	}
	if n > 0 && b.judged() {
		return n, nil
	}
	return n, b.err
}

// pass gives bytes to the judge, in pieces of a good size.
func (b *narBody) pass(p []byte) {
	for len(p) > 0 {
		n := min(len(p), cap(b.piece)-len(b.piece))
		b.piece = append(b.piece, p[:n]...)
		p = p[n:]
		if len(b.piece) == cap(b.piece) {
			b.judge.work <- b.piece
			b.piece = <-b.judge.free
		}
	}
}

// verdict is called once, with all bytes read.
func (b *narBody) verdict() error {
	b.judge.work <- b.piece
	b.close()
	if failure := b.judge.failure.Load(); failure != nil {
		return *failure
	}
	if got := b.judge.sum(); got != b.want && !b.open {
		return wrongHash(nix.SHA256Hash(got), nix.SHA256Hash(b.want), b.size)
	}
	if err := b.judge.nar.Close(); err != nil {
		return malformed(err)
	}
	return io.EOF
}

// close stops the judge and waits for it. It may be called again.
func (b *narBody) close() { b.judge.stop() }

// failed returns what is wrong with the body, nil if nothing was found so far.
func (b *narBody) failed() error {
	if b.err == nil || b.judged() {
		return nil
	}
	return b.err
}

// judged reports whether the whole body was found good.
func (b *narBody) judged() bool { return b.err == io.EOF } //nolint:errorlint // our own value

// judge hashes pieces and checks that they are a NAR.
type judge struct {
	work    chan []byte // closed by stop
	free    chan []byte
	done    chan struct{} // closed by run
	stopped bool
	failure atomic.Pointer[error]
	hash    hash.Hash
	nar     *nar.Verifier
	list    lister
}

func newJudge() *judge {
	j := &judge{
		work: make(chan []byte, judgeBuffers),
		free: make(chan []byte, judgeBuffers),
		done: make(chan struct{}),
		hash: sha256.New(),
		nar:  nar.NewVerifier(),
	}
	j.nar.OnEntry = j.list.entry
	for range judgeBuffers {
		j.free <- make([]byte, 0, judgeBytes)
	}
	return j
}

func (j *judge) run() {
	defer close(j.done)
	for piece := range j.work {
		if j.failure.Load() == nil {
			j.hash.Write(piece)
			if _, err := j.nar.Write(piece); err != nil {
				err = malformed(err)
				j.failure.Store(&err)
			}
		}
		j.free <- piece[:0]
	}
}

func (j *judge) stop() {
	if !j.stopped {
		j.stopped = true
		close(j.work)
	}
	<-j.done
}

func (j *judge) sum() (sum [32]byte) {
	j.hash.Sum(sum[:0])
	return sum
}

// maxListingPlain bounds the listing that is made of a NAR on its way in. What compresses
// to what is kept of listings is shorter.
const maxListingPlain = 1 << 20

// lister makes the listing of a NAR, unless that gets too long.
type lister struct {
	l    nar.Lister
	over bool
}

func (l *lister) entry(h *nar.Header) {
	if l.over {
		return
	}
	l.l.Entry(h)
	l.over = l.l.Len() > maxListingPlain
}

// listing returns the listing of a NAR that was found good, compressed as it is kept; nil if
// it is too long, or cannot be written at all.
func (b *narBody) listing(s *server) []byte {
	if !b.judged() {
		return nil
	}
	return b.judge.list.pack(s)
}

// pack returns the listing of a NAR that has ended, compressed as it is kept; nil if it is
// too long, or cannot be written at all.
func (l *lister) pack(s *server) []byte {
	if l.over {
		return nil
	}
	text, err := l.l.Finish()
	if err != nil {
		return nil
	}
	zstd := s.texts.EncodeAll(text, nil)
	if len(zstd) > catalog.MaxListingBytes {
		return nil
	}
	return zstd
}

// goneError reports that the connection broke while the body was arriving.
type goneError struct{ err error }

func (e *goneError) Error() string { return "read the body: " + e.err.Error() }
func (e *goneError) Unwrap() error { return e.err }

// bodyError sorts the errors of reading a request's body: ours, a stall, or a peer that
// has gone away.
func bodyError(err error) error {
	if _, ok := errors.AsType[*refusal](err); ok {
		return err
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
		return errStalled.because(err)
	}
	return errClientGone.because(&goneError{err})
}
