package storewatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
)

// Store is what is asked of the local Nix store. *nixstore.Store implements it.
type Store interface {
	ValidPaths(ctx context.Context, paths []nix.StorePath) ([]nix.StorePath, error)
	AllValidPaths(ctx context.Context) ([]nix.StorePath, error)
	PathInfo(ctx context.Context, p nix.StorePath) (nixstore.PathInfo, error)
	Close() error
}

// Options say what to watch.
type Options struct {
	// OpenStore connects; it is called again when a connection broke.
	OpenStore func(context.Context) (Store, error)
	// StoreDir is what store paths name, RealDir where they are.
	StoreDir nix.StoreDir
	RealDir  string

	// Since: what became valid since then is told first. Zero: only what becomes valid
	// from now on.
	Since time.Time
	// Seen, if not nil, is told after a scan that everything up to a time was told.
	Seen func(time.Time)
	// Sources are told as well.
	Sources bool
	// Rescan is the time between scans; default 10 min, or 20 s where there are no events.
	Rescan time.Duration

	Logger *slog.Logger
	Now    func() time.Time // default time.Now

	follow followFunc // default follow; tests bring their own
}

// followFunc tells of each name that is removed from dir, and of losses, until stop is
// called or it fails. It has begun when it returns.
type followFunc func(dir string) (*follower, error)

// A follower is a source of events.
type follower struct {
	next func() (names []string, lost bool, err error) // blocks; an error is the last
	stop func()                                        // makes next fail
}

var errNoEvents = errors.New("this system tells of no events")

const (
	rescanWithEvents    = 10 * time.Minute
	rescanWithoutEvents = 20 * time.Second
	// quiet is how long to wait for more events, so that a build with ten outputs is one
	// question and not ten.
	quiet = 100 * time.Millisecond
	// firstPause and lastPause bound the time until what failed is tried again.
	firstPause = time.Second
	lastPause  = time.Minute
	// maxPending bounds the names that wait to be asked about. What is beyond it is found
	// by a scan.
	maxPending = 1 << 16
	// slack is for the seconds in which registration times are counted, and clocks that
	// differ a little.
	slack = 5 * time.Second
	// registerWithin is how long it may take from the last change of a path's files to
	// its registration: it is hashed in between.
	registerWithin = time.Hour
)

// Run tells found of paths that have become valid, until ctx ends; then it returns nil.
// What found refuses with an error is told again. Run fails only if the store cannot be
// asked at the beginning, or found refuses what became valid since Options.Since.
func Run(ctx context.Context, o Options, found func([]nix.StorePath) error) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.follow == nil {
		o.follow = follow
	}
	w := &watch{o: o, found: found, pending: map[nix.StorePath]struct{}{}}
	defer w.disconnect()
	return w.run(ctx)
}

// watch is one run of Run.
type watch struct {
	o       Options
	found   func([]nix.StorePath) error
	store   Store // nil: to be opened
	known   map[nix.HashPart]struct{}
	pending map[nix.StorePath]struct{} // whose locks were removed
	pause   time.Duration              // the last one; 0 after a success
	events  <-chan heard               // nil: there are none
	stop    func()                     // ends events

	ask  time.Time // when to ask about what is pending; zero: nothing is
	scan time.Time // when to scan
}

// heard is one answer of a follower.
type heard struct {
	names []string
	lost  bool
	err   error
}

func (w *watch) run(ctx context.Context) error {
	// First the events, then the list: what happens between is told twice, not never.
	w.listen(ctx)
	defer func() { w.stop() }()
	if err := w.baseline(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("watch %s: %w", w.o.RealDir, err)
	}
	w.scan = w.o.Now().Add(w.interval())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(w.due().Sub(w.o.Now()))
		select {
		case <-ctx.Done():
			return nil
		case h := <-w.events:
			w.hear(h)
			if h.err != nil {
				w.o.Logger.WarnContext(ctx, "events of the store end", "err", h.err)
				w.stop()
				w.events, w.scan = nil, w.o.Now().Add(firstPause) // not at once: the cause may persist
			}
		case <-timer.C:
			if w.events == nil {
				w.listen(ctx)
			}
			w.act(ctx)
		}
	}
}

func (w *watch) due() time.Time {
	if !w.ask.IsZero() && w.ask.Before(w.scan) {
		return w.ask
	}
	return w.scan
}

func (w *watch) interval() time.Duration {
	switch {
	case w.o.Rescan > 0:
		return w.o.Rescan
	case w.events != nil:
		return rescanWithEvents
	}
	return rescanWithoutEvents
}

// listen starts to follow the store directory, if that can be.
func (w *watch) listen(ctx context.Context) {
	w.events, w.stop = nil, func() {}
	f, err := w.o.follow(w.o.RealDir)
	if err != nil {
		if !errors.Is(err, errNoEvents) {
			w.o.Logger.WarnContext(ctx, "the store is only looked through now and then", "err", err)
		}
		return
	}
	events := make(chan heard) // closed by nobody: the goroutine ends with done
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			var h heard
			h.names, h.lost, h.err = f.next()
			select {
			case events <- h:
			case <-done:
				return
			}
			if h.err != nil {
				return
			}
		}
	})
	w.events = events
	w.stop = sync.OnceFunc(func() { close(done); f.stop(); wg.Wait() })
}

// hear notes of which paths the locks were removed.
func (w *watch) hear(h heard) {
	if h.lost {
		w.scan = w.o.Now()
	}
	for _, name := range h.names {
		base, locked := strings.CutSuffix(name, ".lock")
		if !locked {
			continue
		}
		p, err := nix.ParseStorePathBase(w.o.StoreDir, base)
		if err != nil || !w.wanted(p) {
			continue
		}
		if len(w.pending) >= maxPending {
			w.scan = w.o.Now()
			continue
		}
		w.pending[p] = struct{}{}
		if w.ask.IsZero() {
			w.ask = w.o.Now().Add(quiet)
		}
	}
}

// wanted says whether a path is of interest, by its name alone.
func (w *watch) wanted(p nix.StorePath) bool {
	name := p.Name()
	switch {
	case strings.HasSuffix(name, ".drv"):
		return false
	case name == "source" || strings.HasSuffix(name, "-source"):
		return w.o.Sources
	}
	return true
}

// act does what is due.
func (w *watch) act(ctx context.Context) {
	now := w.o.Now()
	var err error
	if !w.ask.IsZero() && !now.Before(w.ask) {
		if err = w.askPending(ctx); err == nil {
			w.ask = time.Time{}
		}
	}
	if err == nil && !now.Before(w.scan) {
		if err = w.rescan(ctx); err == nil {
			w.scan = now.Add(w.interval())
		}
	}
	if err == nil || ctx.Err() != nil {
		w.pause = 0
		return
	}
	w.disconnect()
	w.pause = min(max(2*w.pause, firstPause), lastPause)
	w.o.Logger.WarnContext(ctx, "the store is asked again later", "dur", w.pause, "err", err)
	again := w.o.Now().Add(w.pause)
	if !w.ask.IsZero() {
		w.ask = again
	}
	if w.scan.Before(again) {
		w.scan = again
	}
}
