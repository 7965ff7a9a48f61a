package httpapi

import (
	"context"
	"log/slog"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// maxDeletePaths bounds the paths that one request names.
const maxDeletePaths = 10_000

// Deleter removes paths from a cache, and sees to it that their bytes leave the bucket.
type Deleter interface {
	// Delete fails with catalog.ErrNoCache, with catalog.ErrNoPath, or with a
	// *PinnedError, and has then removed nothing. A path that went before, and whose NAR
	// is still there, is no ErrNoPath: its NAR can still be asked to go sooner.
	Delete(ctx context.Context, r DeleteRequest) (DeleteReport, error)
}

// DeleteRequest names paths that are to go.
type DeleteRequest struct {
	Cache   catalog.CacheName
	Paths   []nix.HashPart
	Closure bool // also what they refer to, as far as nothing that stays refers to it
	Now     bool // do not wait until the URLs that clients remember are stale
	DryRun  bool
	By      string
}

// DeleteReport says what went, or would go.
type DeleteReport struct {
	Paths      []DeletedPath
	Weighed    bool  // FreedBytes are known; they are in a dry run, and else if that does not take long
	FreedBytes int64 // stored bytes that nothing else in the store needs
	Former     int   // NARs that the paths named before and that go with them
	// ClosureUnknown are paths that went before, so that nobody knows what else was to go
	// with them; Waiting are others that were deleted at about the same time and that wait.
	ClosureUnknown, Waiting []nix.HashPart

	GoneBy    time.Time // when they will have left the bucket; zero: not known
	Referrers []string  // store paths that stay and refer to one that goes
	Elsewhere []string  // names of other caches with a path of the same NAR
}

// DeletedPath is one of them.
type DeletedPath struct {
	StorePath  string
	NarBytes   int64
	FreedBytes int64
}

// PinnedError reports that a path cannot be deleted because a pin keeps it.
type PinnedError struct {
	StorePath string
	Pin       string
	Root      string // the pinned path: StorePath itself, or one that needs it
}

func (e *PinnedError) Error() string {
	return "path " + e.StorePath + " is kept by pin " + e.Pin + " of " + e.Root
}

// withdrawer is the Deleter of a server that has no collector: paths go from the cache,
// and when their bytes go nobody can say.
type withdrawer struct{ cat *catalog.Catalog }

func (w withdrawer) Delete(ctx context.Context, r DeleteRequest) (DeleteReport, error) {
	if r.Closure || r.Now {
		return DeleteReport{}, errNoCollector
	}
	report := DeleteReport{}
	for _, hashPart := range r.Paths {
		p, err := w.cat.Path(ctx, r.Cache, hashPart)
		if err != nil {
			return DeleteReport{}, err
		}
		report.Paths = append(report.Paths, DeletedPath{StorePath: p.StorePath.String(), NarBytes: p.NarSize})
	}
	if r.DryRun {
		return report, nil
	}
	for _, hashPart := range r.Paths {
		if _, err := w.cat.Withdraw(ctx, r.Cache, hashPart); err != nil {
			return DeleteReport{}, err
		}
	}
	return report, nil
}

// deletePaths answers POST /_api/v1/caches/{cache}/delete-paths.
func (s *server) deletePaths(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Delete: true})
	if err != nil {
		return err
	}
	raw, err := x.readJSON()
	if err != nil {
		return err
	}
	req, err := wire.DecodeDeleteRequest(raw)
	if err != nil {
		return jsonError(err)
	}
	if n := len(req.Paths); n < 1 || n > maxDeletePaths {
		return requestError("paths: expected 1 to %d, found %d", maxDeletePaths, n)
	}
	paths := make([]nix.HashPart, 0, len(req.Paths))
	for _, text := range req.Paths {
		hashPart, err := nix.ParseHashPart(text)
		if err != nil {
			return requestError("paths: %v", err)
		}
		paths = append(paths, hashPart)
	}
	report, err := s.delete(x, DeleteRequest{
		Cache: cache.Name, Paths: paths, Closure: req.Closure, Now: req.Now, DryRun: req.DryRun, By: x.grant.Subject,
	})
	if err != nil {
		return err
	}
	out := wire.DeleteReport{
		DryRun: req.DryRun, Paths: make([]wire.DeletedPath, 0, len(report.Paths)), Former: report.Former, Referrers: report.Referrers,
	}
	if report.Weighed {
		out.FreedBytes = &report.FreedBytes
	}
	for _, p := range report.Paths {
		one := wire.DeletedPath{StorePath: p.StorePath, NarBytes: p.NarBytes}
		if report.Weighed {
			one.FreedBytes = &p.FreedBytes
		}
		out.Paths = append(out.Paths, one)
	}
	for _, hashPart := range report.ClosureUnknown {
		out.ClosureUnknown = append(out.ClosureUnknown, hashPart.String())
	}
	for _, hashPart := range report.Waiting {
		out.Waiting = append(out.Waiting, hashPart.String())
	}
	if !report.GoneBy.IsZero() {
		out.GoneBy = &report.GoneBy
	}
	// That another tenant has the same bytes has to be said, since they stay; who it is
	// has not.
	for _, name := range report.Elsewhere {
		if x.grant.Permission(name).CanDiscover() {
			out.Elsewhere = append(out.Elsewhere, name)
		} else {
			out.Hidden++
		}
	}
	x.sendJSON(out)
	return nil
}

// deletePath answers DELETE /_api/v1/caches/{cache}/paths/{hashpart}.
func (s *server) deletePath(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Delete: true})
	if err != nil {
		return err
	}
	hashPart, err := nix.ParseHashPart(x.r.PathValue("hashpart"))
	if err != nil {
		return errNoSuchObject.because(err)
	}
	report, err := s.delete(x, DeleteRequest{Cache: cache.Name, Paths: []nix.HashPart{hashPart}, By: x.grant.Subject})
	if err != nil {
		return err
	}
	if len(report.Paths) == 0 {
		return errNoSuchObject // there was a NAR at most, of a path that went before
	}
	return x.sendEmpty()
}

// delete does what was asked for and says so in the log and in the answer's header.
func (s *server) delete(x *exchange, r DeleteRequest) (DeleteReport, error) {
	report, err := s.opts.Deleter.Delete(x.r.Context(), r)
	if err != nil || r.DryRun {
		return report, err
	}
	x.setSeq(s.cat.Seq())
	x.note(slog.Int("paths", len(report.Paths)))
	return report, nil
}
