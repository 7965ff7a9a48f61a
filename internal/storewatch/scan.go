package storewatch

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
)

func (w *watch) connect(ctx context.Context) error {
	if w.store != nil {
		return nil
	}
	store, err := w.o.OpenStore(ctx)
	if err != nil {
		return err
	}
	w.store = store
	return nil
}

func (w *watch) disconnect() {
	if w.store != nil {
		_ = w.store.Close()
		w.store = nil
	}
}

// list asks for all paths there are.
func (w *watch) list(ctx context.Context) ([]nix.StorePath, error) {
	if err := w.connect(ctx); err != nil {
		return nil, err
	}
	return w.store.AllValidPaths(ctx)
}

// baseline fetches the list that later ones are compared with.
func (w *watch) baseline(ctx context.Context) error {
	began := w.o.Now()
	all, err := w.list(ctx)
	if err != nil {
		return err
	}
	w.know(all)
	if !w.o.Since.IsZero() {
		missed, err := w.registeredSince(ctx, all, w.o.Since.Add(-slack))
		if err != nil {
			return err
		}
		if err := w.tell(missed); err != nil {
			return err
		}
	}
	w.seen(began)
	return nil
}

func (w *watch) know(all []nix.StorePath) {
	w.known = make(map[nix.HashPart]struct{}, len(all))
	for _, p := range all {
		w.known[p.HashPart()] = struct{}{}
	}
}

// registeredSince returns those of the paths that became valid since a time.
func (w *watch) registeredSince(ctx context.Context, all []nix.StorePath, since time.Time) ([]nix.StorePath, error) {
	var recent []nix.StorePath
	for _, p := range all {
		// What has not changed since on disk has not been made since, and need not be
		// asked about: of a large store that leaves a handful.
		if !w.wanted(p) || !changedSince(filepath.Join(w.o.RealDir, p.Base()), since.Add(-registerWithin)) {
			continue
		}
		info, err := w.store.PathInfo(ctx, p)
		if errors.Is(err, nixstore.ErrNotValid) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !info.RegistrationTime.Before(since) {
			recent = append(recent, p)
		}
	}
	return recent, nil
}

// changedSince reports whether a file was made or changed since a time, as far as can
// be told: if not, it says yes.
func changedSince(name string, since time.Time) bool {
	info, err := os.Lstat(name)
	if err != nil {
		return true
	}
	at, ok := changeTime(info)
	return !ok || !at.Before(since)
}

// askPending tells of those that are valid. The others' builds have failed, or a scan
// will find them.
func (w *watch) askPending(ctx context.Context) error {
	if len(w.pending) == 0 {
		return nil
	}
	if err := w.connect(ctx); err != nil {
		return err
	}
	valid, err := w.store.ValidPaths(ctx, slices.Collect(maps.Keys(w.pending)))
	if err != nil {
		return err
	}
	if err := w.tell(valid); err != nil {
		return err
	}
	clear(w.pending)
	return nil
}

func (w *watch) rescan(ctx context.Context) error {
	began := w.o.Now()
	all, err := w.list(ctx)
	if err != nil {
		return err
	}
	var fresh []nix.StorePath
	for _, p := range all {
		if _, known := w.known[p.HashPart()]; !known && w.wanted(p) {
			fresh = append(fresh, p)
		}
	}
	if err := w.tell(fresh); err != nil {
		return err
	}
	w.know(all)
	w.seen(began)
	return nil
}

func (w *watch) tell(paths []nix.StorePath) error {
	if len(paths) == 0 {
		return nil
	}
	if err := w.found(paths); err != nil {
		return err
	}
	for _, p := range paths {
		w.known[p.HashPart()] = struct{}{}
	}
	return nil
}

func (w *watch) seen(at time.Time) {
	if w.o.Seen != nil {
		w.o.Seen(at)
	}
}
