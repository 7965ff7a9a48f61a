package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nar"
)

// committing is a commit on its way.
type committing struct {
	x       *exchange
	cache   catalog.Cache
	paths   []committingPath
	pubs    []catalog.Publication
	missing []wire.MissingReceipts
}

// committingPath is a path with what its receipts say.
type committingPath struct {
	up       *upload
	receipts []receipt
}

// deltaCommit answers POST /_api/v1/delta/{cache}/commit.
func (s *server) deltaCommit(x *exchange) error {
	cache, err := x.admitDelta(false)
	if err != nil {
		return err
	}
	body, done, err := x.readReceipts()
	if err != nil {
		return err
	}
	defer done()
	req, err := wire.DecodeCommit(body, deltaCommitPaths)
	switch {
	case wire.IsTooLong(err):
		return tooLarge("A commit has at most %d paths. Send less at a time.", deltaCommitPaths)
	case err != nil:
		return jsonError(err)
	}
	c := &committing{x: x, cache: cache}
	if slices.ContainsFunc(req.Paths, func(p wire.CommitPath) bool { return p.Pin != nil }) {
		if _, _, err := x.authorise(string(cache.Name), auth.Permission{Push: true, Pin: true}); err != nil {
			return err
		}
	}
	x.note(slog.Int("paths", len(req.Paths)))
	for i := range req.Paths {
		if err := c.add(i, &req.Paths[i]); err != nil {
			return err
		}
	}

	// From here on the client's patience does not matter. What is found out about a large
	// NAR is of use to its next attempt, too: that waits for this one.
	ctx := context.WithoutCancel(x.r.Context())
	for i := range c.paths {
		if err := c.join(ctx, i); err != nil {
			return err
		}
	}
	if len(c.missing) > 0 {
		return c.chunksMissing(nil)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.PublishTimeout)
	defer cancel()
	seq, published, err := s.cat.PublishAll(ctx, c.pubs, catalog.PublishOptions{RefuseAbsent: s.opts.RefuseAbsentReferences})
	if err != nil {
		return c.refused(err)
	}
	return c.answer(seq, published)
}

// add checks all of a path that can be told without looking at any chunk.
func (c *committing) add(i int, p *wire.CommitPath) error {
	x, s := c.x, c.x.s
	info := wire.UploadInfo{
		StorePath: p.StorePath, References: p.References, Deriver: &p.Deriver, Sigs: p.Sigs, CA: &p.CA,
		NarHash: p.NarHash, NarSize: p.NarSize, Pin: p.Pin,
	}
	if path, err := nix.ParseStorePath(p.StorePath); err == nil {
		info.StorePathHash = path.HashPart().String()
	} else {
		return requestError("path %d: store_path: %v", i, err)
	}
	up, err := parseUploadInfo(&info)
	if err != nil {
		return requestError("path %d: %v", i, strings.TrimPrefix(err.Error(), "General request error: "))
	}
	if up.path.Dir() != c.cache.StoreDir {
		return requestError("path %d: store path %s: expected one in the cache's store dir %s", i, up.path, c.cache.StoreDir)
	}
	if up.size > s.opts.MaxNarBytes {
		return tooLarge("The NAR of path %d has %d bytes, this server takes at most %d.", i, up.size, s.opts.MaxNarBytes)
	}
	path := catalog.Path{
		Cache: c.cache.Name, StorePath: up.path, NarHash: up.narHash, NarSize: up.size, References: up.references,
		Deriver: up.deriver, System: p.System, CA: p.CA, Sigs: up.sigs, By: x.grant.Subject,
	}
	if err := path.Valid(); err != nil {
		return requestError("path %d: %v", i, err)
	}
	pin, err := pinOf(&info)
	if err != nil {
		return err
	}
	rs, err := x.openReceipts(fmt.Sprintf("path %d", i), c.cache.Name, p.Receipts)
	if err != nil {
		return err
	}
	if err := chain(rs, up, s.opts.Mutants); err != nil {
		return badReceipts("path %d: %v", i, err)
	}
	c.paths = append(c.paths, committingPath{up: up, receipts: rs})
	c.pubs = append(c.pubs, catalog.Publication{Path: path, Pin: pin, First: true})
	return nil
}

// join makes the recipe of a path, or notes which receipts are no good any more.
func (c *committing) join(ctx context.Context, i int) error {
	p, s := &c.paths[i], c.x.s
	var segs []chunkstore.Segment
	for j := range p.receipts {
		segs = append(segs, p.receipts[j].parts...)
	}
	recipe, err := s.chunks.Join(ctx, p.up.narHash, segs)
	switch {
	case stale(err):
		return c.note(i, nil)
	case err != nil:
		return err
	case recipe.Size != p.up.size:
		return fmt.Errorf("join NAR %x: its chunks have %d bytes, its receipts %d", p.up.narHash, recipe.Size, p.up.size)
	}
	c.pubs[i].Recipe = recipe
	if len(p.receipts) == 1 && p.receipts[0].whole {
		c.pubs[i].Listing = s.delta.lists.get(p.up.narHash)
		return nil
	}
	c.pubs[i].Listing, err = s.checkNar(ctx, &recipe)
	switch {
	case stale(err):
		return c.note(i, nil)
	case err != nil:
		if bad, ok := errors.AsType[*nar.SyntaxError](err); ok {
			return badNar(p.up.path, bad)
		}
		return err
	}
	return nil
}

// stale reports whether something was collected that a receipt names.
func stale(err error) bool {
	return errors.Is(err, chunkstore.ErrGone) || errors.Is(err, chunk.ErrNoPack)
}

// note notes which receipts of a path name chunks that are gone: those that overlap with
// runs, or, if there are none, those of which something is gone now.
func (c *committing) note(i int, runs []chunk.Run) error {
	m := wire.MissingReceipts{Path: i}
	for j := range c.paths[i].receipts {
		for k := range c.paths[i].receipts[j].parts {
			part := &c.paths[i].receipts[j].parts[k]
			gone := slices.ContainsFunc(part.Runs, func(r chunk.Run) bool {
				return slices.ContainsFunc(runs, func(o chunk.Run) bool { return overlap(r, o) })
			})
			if len(runs) == 0 {
				var err error
				if gone, err = c.x.s.cat.Gone(part.Runs); err != nil {
					return err
				}
			}
			if gone {
				m.Receipts = append(m.Receipts, j)
				break
			}
		}
	}
	if len(m.Receipts) == 0 { // it cannot be told, so all of them
		for j := range c.paths[i].receipts {
			m.Receipts = append(m.Receipts, j)
		}
	}
	c.missing = append(c.missing, m)
	return nil
}

func overlap(a, b chunk.Run) bool {
	return a.Pack == b.Pack && a.First < b.First+b.Count && b.First < a.First+a.Count
}

func (c *committing) chunksMissing(cause error) error {
	c.x.s.metrics.deltaStale.Inc()
	c.x.setSeq(c.x.s.cat.Seq()) // so that no replica which has not seen it says that they are there
	e := errChunksMissing.because(cause)
	e.missing = c.missing
	return e
}

// refused gives the refusal of a publication its answer.
func (c *committing) refused(err error) error {
	all, ok := errors.AsType[*catalog.PublishAllError](err)
	if !ok {
		return err
	}
	var absent []nix.StorePath
	for _, f := range all.Failed {
		if gone, ok := errors.AsType[*catalog.ChunksMissingError](f.Err); ok {
			c.x.s.chunks.Refused(&c.pubs[f.Index].Recipe) // so that the next push of it brings what is gone
			if err := c.note(f.Index, gone.Runs); err != nil {
				return err
			}
		}
		if e, ok := errors.AsType[*catalog.AbsentReferencesError](f.Err); ok {
			absent = append(absent, e.References...)
		}
		if e, ok := errors.AsType[*catalog.OtherNarError](f.Err); ok {
			return otherNar(e)
		}
	}
	switch {
	case len(c.missing) > 0:
		return c.chunksMissing(err)
	case len(absent) > 0:
		return absentReferences(absent).because(err)
	}
	return all.Failed[0].Err
}

// answer tells what became of the paths.
func (c *committing) answer(seq catalog.Seq, published []catalog.Published) error {
	s := c.x.s
	var asked []nix.HashPart
	for i := range published {
		for _, ref := range c.pubs[i].Path.References {
			asked = append(asked, ref.HashPart())
		}
	}
	gone, err := s.cat.AbsentPaths(c.cache.Name, asked)
	if err != nil {
		return err
	}
	absent := make(map[nix.HashPart]bool, len(gone))
	for _, hashPart := range gone {
		absent[hashPart] = true
	}
	result := wire.CommitResult{Seq: uint64(seq), Committed: len(published), Paths: make([]wire.CommittedPath, len(published))}
	present := 0
	for i, p := range published {
		out := wire.CommittedPath{Kind: wire.CommitUploaded, NarSize: c.pubs[i].Path.NarSize, FileSize: p.FileSize}
		if p.Present {
			out.Kind = wire.CommitPresent
			present++
		}
		for _, ref := range c.pubs[i].Path.References {
			if absent[ref.HashPart()] {
				out.AbsentReferences = append(out.AbsentReferences, ref.Base())
			}
		}
		result.Paths[i] = out
	}
	s.metrics.uploads.Add(len(published))
	s.metrics.deltaPaths.Add(len(published))
	s.metrics.deltaPresent.Add(present)
	c.x.setSeq(seq)
	c.x.sendJSON(result)
	return nil
}
