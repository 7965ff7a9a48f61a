package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// restoreAttempts is how often the difference is worked out anew because somebody has
// changed one of its rows meanwhile.
const restoreAttempts = 10

// RestoreRequest says what is to be again as it was.
type RestoreRequest struct {
	At When
	// Cache, if not "", is the one cache to restore; with Pin or Path only that pin, or
	// only that path, with all they refer to.
	Cache, Pin, Path string
	// KeepNew brings back what is not there any more and leaves alone what is.
	KeepNew bool
	DryRun  bool
	By      string // for people: in the log
	Version string
	// Each, if not nil, is told every change that a dry run finds.
	Each func(RestoreChange) error
}

// RestoreChange is one thing that a restore changes.
type RestoreChange struct {
	What  string `json:"what"` // back, changed, removed or lost
	Kind  string `json:"kind"` // cache, path or pin
	Cache string `json:"cache"`
	Name  string `json:"name,omitempty"` // store path or name of the pin
}

// RestoreReport says what a restore did, or would do.
type RestoreReport struct {
	At     Moment          `json:"at"`
	DryRun bool            `json:"dry_run,omitempty"`
	Before uint64          `json:"before"`        // the slot whose state was found
	Seq    uint64          `json:"seq,omitempty"` // the slot that restored it; 0: there was nothing to do
	Caches []RestoredCache `json:"caches"`        // that differ
	Lost   []LostPath      `json:"lost"`
}

// RestoredCache says what became of one cache.
type RestoredCache struct {
	Name    string `json:"name"`
	What    string `json:"what"`    // back, changed, removed
	Back    int    `json:"back"`    // paths that were gone
	Changed int    `json:"changed"` // paths that were there, but not as they were
	Removed int    `json:"removed"` // paths that had not been there
	Pins    int    `json:"pins"`    // pins that came back, changed or went
	Config  bool   `json:"config"`  // its key or settings changed
}

// Untouched reports whether nothing of what differs can come back.
func (c *RestoredCache) Untouched() bool {
	return c.What == "changed" && !c.Config && c.Back+c.Changed+c.Removed+c.Pins == 0
}

// LostPath is a path that cannot come back: bytes of its NAR are gone.
type LostPath struct {
	Cache     string `json:"cache"`
	StorePath string `json:"store_path"`
}

// RestoreError reports a restore that makes no sense.
type RestoreError struct{ Problem, Hint string }

func (e *RestoreError) Error() string { return e.Problem }

// Restore makes a bucket, or a part of what it holds, again what it was at some moment,
// by an ordinary operation: the log goes on, and what was in between can be restored in
// the same way. It needs no server and does not mind those at work.
func Restore(ctx context.Context, cfg config.Config, r RestoreRequest) (rep RestoreReport, err error) {
	n, err := openDirect(ctx, cfg, Options{Version: r.Version}, "restore", nil)
	if err != nil {
		return rep, err
	}
	rep, err = n.restore(ctx, r)
	return rep, errors.Join(err, n.Close())
}

func (n *Node) restore(ctx context.Context, r RestoreRequest) (rep RestoreReport, err error) {
	rep.DryRun = r.DryRun
	if rep.At, err = r.At.resolve(ctx, n.logBucket); err != nil {
		return rep, err
	}
	past, err := index.OpenPast(ctx, n.logBucket, filepath.Join(n.cfg.CacheDir, n.format.Store.String()), wal.Seq(rep.At.Seq), n.scratch())
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, past.Close()) }()
	then, err := catalog.SnapshotOf(past.DB)
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, then.Close()) }()
	x := &restorer{RestoreRequest: r, cat: n.cat, then: then, rep: &rep, added: map[catalog.CacheName]int{}, early: map[catalog.CacheName]int{}}
	x.ctx = wal.As(ctx, r.By)
	if err := x.parse(); err != nil {
		return rep, err
	}
	err = x.run(x.ctx)
	if err == nil && !r.DryRun {
		if serr := n.cat.Sweep(ctx); serr != nil {
			n.o.Logger.Info("paths of a replaced cache are left for later", "err", serr)
		}
	}
	return rep, err
}

// restorer is one restore on its way.
type restorer struct {
	RestoreRequest
	cat  *catalog.Catalog
	then *catalog.Snapshot
	rep  *RestoreReport

	ctx   context.Context           //nolint:containedctx // of the one call that made this
	now   *catalog.Snapshot         // of the attempt
	added map[catalog.CacheName]int // paths that were brought back already, in this attempt
	early map[catalog.CacheName]int // and in earlier ones
	cache catalog.CacheName
	path  nix.HashPart
	built []*catalog.Rebuild // caches put together aside

	missed map[string]misses // by cache: what the attempt counted and could not bring back
}

// misses counts paths that are lost, by what they were counted as.
type misses struct{ back, changed int }

func (x *restorer) parse() (err error) {
	if x.Cache != "" {
		if x.cache, err = catalog.ParseCacheName(x.Cache); err != nil {
			return &PathError{err}
		}
	}
	if x.Path != "" {
		x.path, err = parseHashPart(x.Path)
	}
	return err
}

func (x *restorer) run(ctx context.Context) (err error) {
	defer func() {
		for _, b := range x.built {
			err = errors.Join(err, b.Abandon(context.WithoutCancel(ctx)))
		}
	}()
	for attempt := 1; ; attempt++ {
		err := x.attempt(ctx)
		if err == nil {
			x.uncount()
		}
		if err == nil && !x.DryRun {
			return x.beside(ctx)
		}
		if err == nil || attempt == restoreAttempts || !errors.Is(err, catalog.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// beside brings back what the caches kept beside their paths, unless only a part of one
// was asked for.
func (x *restorer) beside(ctx context.Context) error {
	if x.Path != "" || x.Pin != "" {
		return nil
	}
	caches, err := x.then.Caches()
	if err != nil {
		return err
	}
	for i := range caches {
		if x.Cache != "" && caches[i].Name != x.cache {
			continue
		}
		if _, err := x.cat.RestoreBeside(ctx, x.then, caches[i].Name); err != nil && !errors.Is(err, catalog.ErrNoCache) {
			return err
		}
	}
	return nil
}

// attempt works out the difference and makes it go away.
func (x *restorer) attempt(ctx context.Context) error {
	if _, err := x.cat.CatchUp(ctx); err != nil {
		return err
	}
	var err error
	if x.now, err = x.cat.Snapshot(ctx); err != nil {
		return err
	}
	defer func() { _ = x.now.Close() }()
	for name, n := range x.added {
		x.early[name] += n
	}
	clear(x.added)
	x.rep.Before, x.rep.Caches, x.rep.Lost = uint64(x.now.Seq()), []RestoredCache{}, []LostPath{}
	x.missed = map[string]misses{}
	diffs, err := x.diff()
	if err != nil {
		return err
	}
	if x.DryRun || len(diffs) == 0 {
		return nil
	}
	op, err := x.fit(ctx, diffs)
	if err != nil || len(op) == 0 {
		return err
	}
	done, err := x.cat.Restore(ctx, op)
	if err != nil {
		return fmt.Errorf("restore %v: %w", x.rep.At, err)
	}
	x.built = nil // they are visible now
	return x.done(done)
}

func (x *restorer) done(r catalog.Restored) error {
	x.rep.Seq = uint64(r.Seq)
	return x.lost(r.Lost)
}

func (x *restorer) lost(paths []catalog.LostPath) error {
	for _, l := range paths {
		now, there, err := x.now.Cache(l.Cache)
		if err == nil && there {
			_, there, err = x.now.Path(now.ID, l.StorePath.HashPart())
		}
		if err != nil {
			return err
		}
		x.miss(string(l.Cache), l.StorePath, there)
	}
	return nil
}

// miss notes a path that is lost; there says that the cache has it, if not as it was.
func (x *restorer) miss(cache string, path nix.StorePath, there bool) {
	x.rep.Lost = append(x.rep.Lost, LostPath{Cache: cache, StorePath: path.String()})
	m := x.missed[cache]
	if there {
		m.changed++
	} else {
		m.back++
	}
	x.missed[cache] = m
}

// uncount takes what is lost out of what is said to be back.
func (x *restorer) uncount() {
	for i := range x.rep.Caches {
		c := &x.rep.Caches[i]
		m := x.missed[c.Name]
		c.Back, c.Changed = max(0, c.Back-m.back), max(0, c.Changed-m.changed)
	}
}

// fit makes one operation of the differences, so that all is restored at once. Caches that
// are too much for it are put together aside, the largest first, and take their place.
func (x *restorer) fit(ctx context.Context, diffs []*cacheDiff) (op []catalog.CacheRestore, err error) {
	for {
		total := 0
		var largest *cacheDiff
		for _, d := range diffs {
			total += d.cost()
			if !d.small() && (largest == nil || d.cost() > largest.cost()) {
				largest = d
			}
		}
		if total <= catalog.RestoreBytes || largest == nil {
			break
		}
		if err := x.build(ctx, largest); err != nil {
			return nil, err
		}
	}
	for _, d := range diffs {
		if d.Aside != nil || d.Then == nil || d.Now == nil || d.sum.Config || len(d.Set)+len(d.Drop)+len(d.SetPins)+len(d.DropPins) > 0 {
			op = append(op, d.CacheRestore)
		}
	}
	return op, nil
}

// additive says that nothing is removed or changed.
func (x *restorer) additive() bool { return x.KeepNew || x.Pin != "" || x.Path != "" }

// build puts a cache together aside.
func (x *restorer) build(ctx context.Context, d *cacheDiff) error {
	then := *d.Then
	b, err := x.cat.BeginRebuild(ctx, then)
	if err != nil {
		return err
	}
	x.built = append(x.built, b)
	add := func(paths []catalog.Path) error {
		done, err := b.AddPaths(ctx, paths)
		return errors.Join(err, x.lost(done.Lost))
	}
	const page = 1000
	var paths []catalog.Path
	for p, err := range x.then.Paths(then.ID) {
		if err != nil {
			return err
		}
		if paths = append(paths, p); len(paths) == page {
			if err := add(paths); err != nil {
				return err
			}
			paths = paths[:0]
		}
	}
	if err := add(paths); err != nil {
		return err
	}
	pins, err := x.then.Pins(then.ID)
	if err != nil {
		return err
	}
	if err := b.AddPins(ctx, pins); err != nil {
		return err
	}
	d.CacheRestore = catalog.CacheRestore{Name: d.Name, Now: d.Now, Then: d.Then, Aside: b}
	d.over = false
	return nil
}
