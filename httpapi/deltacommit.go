package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nar"
)

// readReceipts reads the body of a commit or a join, of which few may be long at once.
func (x *exchange) readReceipts() (body []byte, done func(), err error) {
	if err := x.wantJSON(); err != nil {
		return nil, nil, err
	}
	limit, done := int64(maxJSONBytes), func() {}
	if n := x.r.ContentLength; n < 0 || n > maxJSONBytes {
		limit = deltaCommitBytes
		select {
		case x.s.missingSlots <- struct{}{}:
			done = func() { <-x.s.missingSlots }
		case <-x.r.Context().Done():
			return nil, nil, x.r.Context().Err()
		}
	}
	r, err := x.limitedBody(limit)
	if err == nil {
		if body, err = io.ReadAll(r); err != nil {
			err = bodyError(err)
		}
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return body, done, nil
}

// openReceipts opens what stands in a request for what is called what.
func (x *exchange) openReceipts(what string, cache catalog.CacheName, sealed [][]byte) ([]receipt, error) {
	if len(sealed) == 0 {
		return nil, badReceipts("%s has none", what)
	}
	var rs []receipt // no room for all of them at once: who knows what they are
	for i := range sealed {
		r, err := x.s.delta.sealer.open(sealed[i], cache, x.grant.Subject)
		if err != nil {
			return nil, badReceipts("%s, receipt %d: %v", what, i, err)
		}
		rs = append(rs, r)
	}
	return rs, nil
}

// deltaJoin answers POST /_api/v1/delta/{cache}/join.
func (s *server) deltaJoin(x *exchange) error {
	cache, err := x.admitDelta(false)
	if err != nil {
		return err
	}
	body, done, err := x.readReceipts()
	if err != nil {
		return err
	}
	defer done()
	req, err := wire.DecodeJoin(body)
	if err != nil {
		return jsonError(err)
	}
	rs, err := x.openReceipts("the list", cache.Name, req.Receipts)
	if err != nil {
		return err
	}
	all, err := joinReceipts(rs)
	if err != nil {
		return badReceipts("%v", err)
	}
	x.note(slog.Int("segments", len(all.parts)))
	x.sendJSON(wire.JoinResult{Receipt: s.delta.sealer.seal(&all, cache.Name, x.grant.Subject)})
	return nil
}

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
	if err := chain(rs, up); err != nil {
		return badReceipts("path %d: %v", i, err)
	}
	c.paths = append(c.paths, committingPath{up: up, receipts: rs})
	c.pubs = append(c.pubs, catalog.Publication{Path: path, Pin: pin, First: true})
	return nil
}

// chain checks that receipts are the computation of a NAR's hash, done in pieces: the
// first begins at the beginning, each where the one before ends, and the last ends in the
// hash.
func chain(rs []receipt, up *upload) error {
	if !rs[0].begins {
		return errors.New("receipt 0 is not of the beginning of a NAR")
	}
	plain := rs[0].plain()
	for i := 1; i < len(rs); i++ {
		if !rs[i].follows(&rs[i-1]) {
			return fmt.Errorf("receipt %d does not begin where receipt %d ends", i, i-1)
		}
		plain += rs[i].plain()
	}
	last := &rs[len(rs)-1].after
	switch {
	case plain != up.size || last.Length() != up.size:
		return fmt.Errorf("they are for %d bytes, and the NAR is said to have %d", plain, up.size)
	case last.Sum() != up.narHash:
		return fmt.Errorf("they lead to %s, and the NAR hash is said to be %s", nix.SHA256Hash(last.Sum()), nix.SHA256Hash(up.narHash))
	}
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

// checkNar looks into a NAR whose segments came one by one: it reads what is not the
// contents of files, and passes over these. It returns the listing, if that is short.
//
// That is cheap where files are long. A NAR of many short ones would have to be read as a
// whole, which costs more than to take it in: it is given up after a few steps. Its hash is
// right, so it is what the client has; if that is no NAR, whoever substitutes it finds out.
func (s *server) checkNar(ctx context.Context, recipe *chunk.Recipe) (listing []byte, err error) {
	unlock, err := s.delta.checks.lock(ctx, recipe.NarHash)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if known, err := s.cat.HasRecipe(recipe.NarHash); known || err != nil {
		return nil, err // it was looked into when it came first
	}
	ctx, cancel := context.WithTimeout(ctx, deltaCheckTime)
	defer cancel()
	r, err := s.chunks.OpenPlain(ctx, recipe)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it was read, or the error was told
	listing, err = s.walkNar(&frugal{ReadSeeker: r, seeks: deltaCheckSeeks, bytes: deltaCheckBytes})
	if errors.Is(err, errFrugal) {
		s.metrics.deltaUnchecked.Inc()
		return nil, nil
	}
	return listing, err
}

const (
	// deltaCheckSeeks and deltaCheckBytes are how much of a NAR is looked into. A step
	// to elsewhere fetches a frame or more.
	deltaCheckSeeks = 24
	deltaCheckBytes = 1 << 20
)

var errFrugal = errors.New("reading on would cost too much")

// frugal reads a little here and there.
type frugal struct {
	io.ReadSeeker
	seeks, bytes int
}

func (f *frugal) Read(p []byte) (int, error) {
	if f.bytes <= 0 {
		return 0, errFrugal
	}
	n, err := f.ReadSeeker.Read(p)
	f.bytes -= n
	return n, err
}

// Seek implements io.Seeker.
func (f *frugal) Seek(off int64, whence int) (int64, error) {
	if f.seeks--; f.seeks < 0 {
		return 0, errFrugal
	}
	return f.ReadSeeker.Seek(off, whence)
}

// walkNar checks that r is exactly one NAR, without reading long contents, and returns its
// listing.
func (s *server) walkNar(r io.ReadSeeker) (listing []byte, err error) {
	n := nar.NewSeekReader(r)
	var list lister
	for {
		h, err := n.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return list.pack(s), nil
		}
		if err != nil {
			return nil, err
		}
		list.entry(h)
	}
}

// nameLocks let one request at a time work on what has a name. The zero value is ready.
type nameLocks struct {
	mu   sync.Mutex
	held map[[32]byte]chan struct{} // guarded by mu; closed by whoever holds the name
}

// lock waits until nobody else holds the name.
func (l *nameLocks) lock(ctx context.Context, name [32]byte) (unlock func(), err error) {
	for {
		l.mu.Lock()
		other, taken := l.held[name]
		if !taken {
			if l.held == nil {
				l.held = make(map[[32]byte]chan struct{})
			}
			mine := make(chan struct{})
			l.held[name] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, name)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
