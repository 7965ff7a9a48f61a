package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

const (
	// From this size on it pays to ask before sending: whether the server wants the body
	// at all (Expect: 100-continue), and after a failure whether it has it already.
	askFirst = 1 << 20
	// dumpBuffer gathers the small writes of a NAR's framing.
	dumpBuffer = 256 << 10
)

// uploadOne uploads one path, repeating what can be repeated.
func (p *push) uploadOne(ctx context.Context, worker int, path *path) Outcome {
	began := p.c.now()
	o := Outcome{Path: path.storePath, Kind: Pushed, NarSize: path.narSize, Deduplicated: -1}
	retried := func(attempt int, wait time.Duration, err error) {
		if status, ok := errors.AsType[*StatusError](err); ok && status.overload() {
			p.limiter.overloaded(p.c.now())
		}
		p.ev.retry(worker, path.storePath, attempt, wait, err)
	}
	err := p.c.retrying(ctx, &p.budget, retried, func(ctx context.Context, n int) error {
		o.Attempts = n
		if n > 1 && path.narSize >= askFirst && p.arrived(ctx, path) && (path.pin == "" || p.pinArrived(ctx, path, &o)) {
			return nil
		}
		answer, err := p.put(ctx, worker, path)
		if err != nil {
			return err
		}
		o.FileSize, o.Pin = deref(answer.FileSize), answer.Pin
		if path.pin != "" && o.Pin == nil && !p.pinArrived(ctx, path, &o) {
			return final(&CannotPinError{Endpoint: p.c.Endpoint(), Cache: p.o.Cache})
		}
		if answer.FracDeduplicated != nil {
			o.Deduplicated = *answer.FracDeduplicated
		}
		if answer.Kind == wire.KindDeduplicated {
			o.Kind, o.Deduplicated = Deduplicated, 1
		}
		return nil
	})
	o.Took = p.c.now().Sub(began)
	if err != nil {
		o.Kind, o.Err = Failed, err
		return o
	}
	p.limiter.succeeded()
	return o
}

// arrived asks whether a path whose upload failed is there all the same, because
// only the answer was lost. If that cannot be told it is sent again.
func (p *push) arrived(ctx context.Context, path *path) bool {
	text := path.storePath.HashPart().String()
	payload, err := encode(wire.MissingPathsRequest{Cache: p.o.Cache, StorePathHashes: []string{text}})
	if err != nil {
		return false
	}
	var answer wire.MissingPathsResponse
	return p.c.attempt(ctx, http.MethodPost, "_api/v1/get-missing-paths", payload, &answer) == nil && len(answer.MissingPaths) == 0
}

// put makes one attempt: the NAR is read from the store while it is sent, and nothing
// of it is kept.
func (p *push) put(ctx context.Context, worker int, path *path) (wire.UploadResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	dump := p.dump(ctx, path)
	defer dump.stop()
	body := newMeter(dump, p.c.retry.Idle, func() { cancel(errStalled) }, func(n int64) { p.ev.sent(worker, n) })

	req, err := p.newUpload(ctx, path, body)
	if err != nil {
		return wire.UploadResult{}, final(err)
	}
	var answer wire.UploadResult
	err = p.c.do(req, &answer)
	sent := body.finish()
	if err == nil {
		return answer, nil
	}
	p.ev.sent(worker, -sent)
	dump.stop()
	if local := dump.problem(path); local != nil {
		return wire.UploadResult{}, final(local)
	}
	if status, ok := errors.AsType[*StatusError](err); ok && status.Status == http.StatusBadRequest {
		if local := p.verify(ctx, path); local != nil {
			return wire.UploadResult{}, final(local)
		}
	}
	return wire.UploadResult{}, err
}

// newUpload makes the request: what the NAR is goes into a header or, if that would be
// long, before the NAR. Both families of header names are sent, so that any server
// of Attic's kind finds its own.
func (p *push) newUpload(ctx context.Context, path *path, nar io.ReadCloser) (*http.Request, error) {
	info, err := json.Marshal(p.uploadInfo(path))
	if err != nil {
		return nil, fmt.Errorf("encode upload info of %s: %w", path.storePath, err)
	}
	req, err := p.c.request(ctx, http.MethodPut, "_api/v1/upload-path", nar)
	if err != nil {
		return nil, err
	}
	req.ContentLength = path.narSize
	if len(info) < wire.HeaderUploadInfoMax && isPlain(info) {
		req.Header.Set(wire.HeaderAtticNarInfo, string(info))
		req.Header.Set(wire.HeaderCellerNarInfo, string(info))
	} else {
		size := strconv.Itoa(len(info))
		req.Header.Set(wire.HeaderAtticNarInfoPreamble, size)
		req.Header.Set(wire.HeaderCellerNarInfoPreamble, size)
		req.ContentLength += int64(len(info))
		req.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(info), nar), nar}
	}
	if path.narSize >= askFirst {
		req.Header.Set("Expect", "100-continue")
	}
	return req, nil
}

func (p *push) uploadInfo(path *path) wire.UploadInfo {
	u := wire.UploadInfo{
		Cache:         p.o.Cache,
		StorePathHash: path.storePath.HashPart().String(),
		StorePath:     path.storePath.String(),
		References:    make([]string, 0, len(path.references)),
		Sigs:          path.sigs,
		NarHash:       path.narHash.Hex(),
		NarSize:       path.narSize,
	}
	for _, ref := range path.references {
		u.References = append(u.References, ref.Base())
	}
	if u.Sigs == nil {
		u.Sigs = []string{}
	}
	if path.deriver != "" {
		u.Deriver = &path.deriver
	}
	if path.ca != "" {
		u.CA = &path.ca
	}
	if path.pin != "" {
		u.Pin = &wire.PinRequest{Name: path.pin, Policy: p.o.PinPolicy}
	}
	return u
}

// isPlain reports whether text may stand in a header as it is.
func isPlain(text []byte) bool {
	for _, b := range text {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return true
}

// DamagedError reports a path of the local store that is not what the store's own
// database says.
type DamagedError struct {
	Path nix.StorePath
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("store path %s is damaged: %v", e.Path, e.Err)
}
func (e *DamagedError) Unwrap() error { return e.Err }

// verify reads a path again to find out whether a refusal of the server was our store's fault.
func (p *push) verify(ctx context.Context, path *path) error {
	sum := sha256.New()
	if err := p.store.Dump(ctx, sum, path.storePath); err != nil {
		return err
	}
	got := nix.SHA256Hash([32]byte(sum.Sum(nil)))
	if _, known := path.narHash.Sum256(); known && got != path.narHash {
		return &DamagedError{path.storePath, fmt.Errorf("NAR hash expected %s, found %s", path.narHash, got)}
	}
	return nil
}

// narDump is a NAR being read from the store by a goroutine of its own.
type narDump struct {
	*io.PipeReader
	wg sync.WaitGroup

	written int64 // these two belong to the goroutine until wg.Wait returns
	err     error
}

func (p *push) dump(ctx context.Context, path *path) *narDump {
	r, w := io.Pipe()
	d := &narDump{PipeReader: r}
	d.wg.Go(func() {
		buffered := bufio.NewWriterSize(w, dumpBuffer)
		counted := &countingWriter{w: buffered}
		d.err = p.store.Dump(ctx, counted, path.storePath)
		if d.err == nil {
			d.err = buffered.Flush()
		}
		d.written = counted.n
		_ = w.CloseWithError(d.err) // never fails
	})
	return d
}

// errStopped is what the goroutine's writes get after stop.
var errStopped = errors.New("the upload has ended")

// stop ends the goroutine and waits for it. It may be called twice.
func (d *narDump) stop() {
	_ = d.Close() // never fails
	d.wg.Wait()
}

// Close is what the transport does when it wants no more.
func (d *narDump) Close() error { return d.CloseWithError(errStopped) }

// problem returns what went wrong on our side, after stop.
func (d *narDump) problem(path *path) error {
	switch {
	case errors.Is(d.err, errStopped), errors.Is(d.err, context.Canceled):
		return nil
	case d.err != nil:
		return d.err
	case d.written != path.narSize:
		return &DamagedError{path.storePath, fmt.Errorf("NAR size expected %d, found %d", path.narSize, d.written)}
	}
	return nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// meter counts what the transport takes of a body, and calls stalled when it takes
// nothing, or does not finish afterwards, for idle.
type meter struct {
	io.ReadCloser
	idle  time.Duration
	timer *time.Timer
	moved func(n int64)

	mu       sync.Mutex // guards what follows: the transport may read on after its answer
	n        int64
	finished bool
}

func newMeter(r io.ReadCloser, idle time.Duration, stalled func(), moved func(int64)) *meter {
	return &meter{ReadCloser: r, idle: idle, timer: time.AfterFunc(idle, stalled), moved: moved}
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.ReadCloser.Read(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.finished {
		m.n += int64(n)
		m.moved(int64(n))
		m.timer.Reset(m.idle)
	}
	return n, err
}

// finish stops the clock and returns how much was taken.
func (m *meter) finish() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finished = true
	m.timer.Stop()
	return m.n
}
