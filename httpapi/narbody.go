package httpapi

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"net"
	"os"
	"sync/atomic"

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

	read  int64
	err   error // sticky: io.EOF once judged good, or what is wrong
	piece []byte
	judge *judge
}

func newNarBody(src io.Reader, size int64, want [32]byte) *narBody {
	b := &narBody{src: src, size: size, want: want, judge: newJudge()}
	go b.judge.run()
	b.piece = <-b.judge.free
	return b
}

// Read implements io.Reader. The bytes it returns are not judged yet; only the io.EOF
// at the end is a verdict.
func (b *narBody) Read(p []byte) (int, error) {
	if b.err == nil && b.read == b.size {
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
	if got := b.judge.sum(); got != b.want {
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
}

func newJudge() *judge {
	j := &judge{
		work: make(chan []byte, judgeBuffers),
		free: make(chan []byte, judgeBuffers),
		done: make(chan struct{}),
		hash: sha256.New(),
		nar:  nar.NewVerifier(),
	}
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
