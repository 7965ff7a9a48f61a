package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// BuildLog writes the log of a build to w, if the cache has it. It is named by the base name
// of the derivation.
func (c *Client) BuildLog(ctx context.Context, cache, drv string, w io.Writer) error {
	path := url.PathEscape(cache) + "/log/" + url.PathEscape(drv)
	return c.retrying(ctx, &budget{}, c.noticed(), func(ctx context.Context, _ int) error {
		req, err := c.request(ctx, http.MethodGet, path, nil)
		if err != nil {
			return final(err)
		}
		res, err := c.http.Do(req)
		if err != nil {
			return fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, bare(err))
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return newStatusError(req, res, c.now())
		}
		if _, err := io.Copy(w, res.Body); err != nil {
			return final(fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, err)) // some of it is out
		}
		return nil
	})
}

// firstVersionWithLogs is the first wire.CapabilitiesVersion that takes logs of builds.
const firstVersionWithLogs = 3

// logParallel logs are sent at a time.
const logParallel = 4

// logStore is a Store that has logs of builds as well. *nixstore.Store is one.
type logStore interface {
	// BuildLog opens the log of a derivation's build, or returns nil if there is none.
	BuildLog(drv string) (io.ReadCloser, error)
}

// logs sends the logs of the builds of what was pushed, as far as the local store has
// them. A log that cannot be read or sent is told and does not make the push fail.
func (p *push) logs(ctx context.Context, cache *Cache) error {
	store, ok := p.store.(logStore)
	if !ok || p.o.NoLogs || cache.Version < firstVersionWithLogs {
		return nil
	}
	var drvs []string
	for _, path := range p.arrivedNow {
		if drv := p.derivers[path]; drv != "" && !slices.Contains(drvs, drv) {
			drvs = append(drvs, drv)
		}
	}
	sent, failed := 0, error(nil)
	var mu sync.Mutex // guards the two
	var g errgroup.Group
	g.SetLimit(logParallel)
	for _, drv := range drvs {
		g.Go(func() error {
			ok, err := p.c.putLog(ctx, p.o.Cache, drv, store)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
			} else if ok {
				sent++
			}
			return nil
		})
	}
	_ = g.Wait() // none of them returns an error
	p.result.Logs = sent
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if failed != nil {
		p.ev.note(fmt.Sprintf("not all logs of builds were sent: %v", failed))
	}
	return nil
}

// putLog stores the log of a build, if there is one. It is read while it is sent, and once
// more for each attempt: logs may be long, and there are many.
func (c *Client) putLog(ctx context.Context, cache, drv string, store logStore) (found bool, err error) {
	path := url.PathEscape(cache) + "/log/" + url.PathEscape(drv)
	err = c.retrying(ctx, &budget{}, c.noticed(), func(ctx context.Context, _ int) error {
		text, err := store.BuildLog(drv)
		if found = text != nil; !found || err != nil {
			return final(err)
		}
		src := &logReader{ReadCloser: text}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		m := newMeter(src, c.retry.Idle, func() { cancel(errStalled) }, func(int64) {})
		defer m.finish()
		req, err := c.request(ctx, http.MethodPut, path, m)
		if err != nil {
			return final(errors.Join(err, text.Close()))
		}
		req.ContentLength = -1
		req.Header.Set("Content-Type", "text/plain; charset=utf-8")
		_, err = c.exchange(req)
		if broken := src.problem(); broken != nil {
			return final(broken)
		}
		return err
	})
	return found, err
}

// logReader remembers what went wrong with a log, which is not the connection's fault.
type logReader struct {
	io.ReadCloser

	mu  sync.Mutex // guards err: the transport may read on after its answer
	err error
}

func (r *logReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, fs.ErrClosed) { //nolint:errorlint // only the bare one is the end
		r.mu.Lock()
		defer r.mu.Unlock()
		r.err = err
	}
	return n, err
}

func (r *logReader) problem() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}
