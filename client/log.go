package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/celler/celler/nix"
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

// lateLogs bounds what is done about logs when a push was given up, and logsOfCommit how
// long a commit waits for them.
const (
	lateLogs     = 5 * time.Second
	logsOfCommit = 30 * time.Second
)

// logSender sends the logs of a push. It belongs to one goroutine at a time.
type logSender struct {
	store  logStore // nil: none are sent
	done   map[string]bool
	sent   int
	failed error // why one was not sent
	late   bool  // a commit has waited for too long
}

// takeLogs decides whether logs are sent. Who may not read the cache's configuration is not
// told that it takes them; then a server with the delta protocol is asked to.
func (p *push) takeLogs(cache *Cache, delta bool) {
	p.log.store = nil
	if store, ok := p.store.(logStore); ok && !p.o.NoLogs && !p.o.DryRun && (cache.Version >= firstVersionWithLogs || cache.Name == "" && delta) {
		p.log.store = store
	}
}

// derivation is whose log belongs to a path, by its base name: of a derivation that is to be
// pushed by name its own.
func (p *push) derivation(path nix.StorePath) string {
	if base := path.Base(); p.named[path] && strings.HasSuffix(base, ".drv") {
		return base
	}
	return p.derivers[path]
}

// logs sends the logs of the builds of what was pushed, as far as the local store has
// them and they were not sent with commits, and those of paths pushed by name that were
// there without. A log that cannot be read or sent is told and does not make the push fail.
func (p *push) logs(ctx context.Context) error {
	p.sendLogs(ctx, p.arrivedNow, false)
	p.sendLogs(ctx, p.namedThere, true)
	p.result.Logs = p.log.sent
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p.log.failed != nil {
		p.ev.note(fmt.Sprintf("not all logs of builds were sent: %v", p.log.failed))
	}
	return nil
}

// logsLate is logs for a push that was given up: nobody would send them later, when the
// paths are there.
func (p *push) logsLate(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lateLogs)
	defer cancel()
	p.sendLogs(ctx, p.arrivedNow, false)
	p.result.Logs = p.log.sent
}

// sendLogs sends the logs of paths that were not sent yet; if ask is set, only those that
// the cache lacks.
func (p *push) sendLogs(ctx context.Context, paths []nix.StorePath, ask bool) {
	l := &p.log
	if l.store == nil {
		return
	}
	if l.done == nil {
		l.done = map[string]bool{}
	}
	var mu sync.Mutex // guards l
	var g errgroup.Group
	g.SetLimit(logParallel)
	begun := map[string]bool{}
	for _, path := range paths {
		drv := p.derivation(path)
		mu.Lock()
		known := drv == "" || l.done[drv] || begun[drv]
		mu.Unlock()
		if known {
			continue
		}
		begun[drv] = true
		g.Go(func() error {
			found, err := false, error(nil)
			if !ask || p.lacksLog(ctx, drv) {
				found, err = p.c.putLog(ctx, p.o.Cache, drv, l.store)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil && ctx.Err() != nil: // another time
				return nil
			case err != nil:
				l.failed = err
			case found:
				l.sent++
			}
			l.done[drv] = true
			return nil
		})
	}
	_ = g.Wait() // none of them returns an error
}

// lacksLog reports whether the local store has a log that the cache has not. Who may not
// read there cannot know.
func (p *push) lacksLog(ctx context.Context, drv string) bool {
	text, err := p.log.store.BuildLog(drv)
	if text == nil || err != nil {
		return err != nil // to be told of it
	}
	if text.Close() != nil {
		return true
	}
	return p.c.attempt(ctx, http.MethodHead, url.PathEscape(p.o.Cache)+"/log/"+url.PathEscape(drv), nil, nil) != nil
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
