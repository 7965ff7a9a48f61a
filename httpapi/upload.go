package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// uploadPath answers PUT /_api/v1/upload-path.
//
// Everything that can be refused without the NAR is refused before its first byte is
// read. Then the NAR goes through once: into the hash and the grammar check on one
// side, into the chunk store on the other. Nothing of it can be seen until Publish
// returns, which is only called after the last byte was judged.
func (s *server) uploadPath(x *exchange) error {
	info, err := x.readUploadInfo()
	if err != nil {
		return err
	}
	up, err := parseUploadInfo(&info)
	if err != nil {
		return err
	}
	x.note(slog.String("cache", info.Cache), slog.String("store_path", up.path.String()), slog.Int64("nar_bytes", info.NarSize))
	if _, err := catalog.ParseCacheName(info.Cache); err != nil {
		return requestError("cache: %v", err)
	}
	cache, _, err := x.authorise(info.Cache, auth.Permission{Push: true, Pin: info.Pin != nil})
	if err != nil {
		return err
	}
	if up.path.Dir() != cache.StoreDir {
		return requestError("store path %s: expected one in the cache's store dir %s", up.path, cache.StoreDir)
	}
	if up.size > s.opts.MaxNarBytes {
		return tooLarge("The NAR has %d bytes, this server takes at most %d.", up.size, s.opts.MaxNarBytes)
	}
	path := catalog.Path{
		Cache:      cache.Name,
		StorePath:  up.path,
		NarHash:    up.narHash,
		NarSize:    up.size,
		References: up.references,
		Deriver:    up.deriver,
		System:     deref(info.System),
		CA:         deref(info.CA),
		Sigs:       up.sigs,
		By:         x.grant.Subject,
	}
	if err := path.Valid(); err != nil {
		return requestError("%v", err)
	}
	pin, err := pinOf(&info)
	if err != nil {
		return err
	}
	stored, listing, deduplicated, err := x.receive(up)
	if err != nil {
		return err
	}

	// From here on the client's patience no longer matters: the work is done, and
	// finishing it saves the client's next attempt.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), s.opts.PublishTimeout)
	defer cancel()
	seq, err := s.publish(ctx, &catalog.Publication{
		Path:    path,
		Recipe:  stored.Recipe,
		Packs:   stored.Packs,
		Pin:     pin,
		Listing: listing,
	})
	if errors.Is(err, catalog.ErrChunksMissing) {
		s.chunks.Refused(&stored.Recipe) // so that the next push of it brings what is gone
	}
	if err != nil {
		return err
	}
	s.metrics.uploads.Inc()
	result := wire.UploadResult{Kind: wire.KindUploaded, Seq: uint64(seq)}
	if deduplicated {
		s.metrics.dedupedNars.Inc()
		result.Kind = wire.KindDeduplicated
	} else {
		size, frac := stored.Recipe.Served.Size, 0.0
		if stored.PlainBytes > 0 {
			frac = 1 - float64(stored.NewBytes)/float64(stored.PlainBytes)
		}
		result.FileSize, result.FracDeduplicated = &size, &frac
	}
	x.setSeq(seq)
	if pin != nil {
		// What cannot be told now is no failure of the upload: the client asks again.
		if now, err := s.pinNow(x, seq, cache.Name, pin.Name); err == nil {
			result.Pin = &now
		}
	}
	if unread := deduplicated && s.opts.TrustHashes; unread && x.bodyPending() {
		x.answerFirst()
		x.sendJSON(result)
		x.drain()
		return nil
	}
	x.sendJSON(result)
	return nil
}

// pinOf is the pin that an upload sets, if it does.
func pinOf(info *wire.UploadInfo) (*catalog.PinChange, error) {
	if info.Pin == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	if err := wire.CheckPinName(info.Pin.Name); err != nil {
		return nil, requestError("%v", err)
	}
	policy, err := policyOf(info.Pin.Policy)
	if err != nil {
		return nil, err
	}
	return &catalog.PinChange{Name: info.Pin.Name, Policy: policy}, nil
}

func (x *exchange) setSeq(seq catalog.Seq) {
	x.Header().Set(wire.HeaderSeq, strconv.FormatUint(uint64(seq), 10))
	x.note(slog.Uint64("seq", uint64(seq)))
}

// receive takes the NAR in. If it is known already its bytes are read and judged all
// the same: only who has them may have the path.
// With it comes its listing.
func (x *exchange) receive(up *upload) (stored chunkstore.Result, listing []byte, deduplicated bool, err error) {
	ctx := x.r.Context()
	known, err := x.knownRecipe(ctx, up)
	if err != nil {
		return chunkstore.Result{}, nil, false, err
	}
	if known != nil && x.s.opts.TrustHashes {
		return chunkstore.Result{Recipe: *known, PlainBytes: up.size}, nil, true, nil
	}
	body := newNarBody(x.body, up.size, up.narHash)
	defer body.close()
	if known != nil {
		if err := discard(body); err != nil {
			return chunkstore.Result{}, nil, false, err
		}
		return chunkstore.Result{Recipe: *known, PlainBytes: up.size}, body.listing(x.s), true, nil
	}
	stored, err = x.s.chunks.Write(ctx, body)
	switch {
	case body.failed() != nil:
		return chunkstore.Result{}, nil, false, body.failed() // says it better than what Write made of it
	case err != nil && ctx.Err() != nil:
		return chunkstore.Result{}, nil, false, err
	case err != nil:
		return chunkstore.Result{}, nil, false, notStored(err)
	case !body.judged():
		return chunkstore.Result{}, nil, false, fmt.Errorf("store NAR %x: the store stopped after %d of %d bytes", up.narHash, body.read, up.size)
	case stored.Recipe.Size != up.size || stored.Recipe.NarHash != up.narHash:
		return chunkstore.Result{}, nil, false, fmt.Errorf("store NAR %x: the store made a recipe for NAR %x of %d bytes", up.narHash, stored.Recipe.NarHash, stored.Recipe.Size)
	}
	return stored, body.listing(x.s), false, nil
}

// knownRecipe returns the recipe of a NAR that can be served already, or nil. A recipe
// whose chunks are not all there is passed over: this upload repairs it.
func (x *exchange) knownRecipe(ctx context.Context, up *upload) (*chunk.Recipe, error) {
	recipe, err := x.s.cat.Recipe(ctx, up.narHash)
	if errors.Is(err, catalog.ErrNoRecipe) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, err
	}
	if recipe.Size != up.size {
		// One of the two is wrong, and the bytes will tell which. To say so now would
		// tell a stranger that some cache here has this NAR.
		return nil, nil //nolint:nilnil // as if there were none
	}
	if x.s.chunks.WasRefused(&recipe) {
		return nil, nil //nolint:nilnil // something of it is gone
	}
	content, err := x.s.chunks.Open(ctx, &recipe)
	if err != nil {
		x.s.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "a known NAR cannot be served and is stored again",
			slog.String("nar_hash", nix.SHA256Hash(up.narHash).String()), slog.Any("err", err))
		return nil, nil //nolint:nilnil // as if there were none
	}
	return &recipe, content.Close()
}

func discard(r io.Reader) error {
	buf := copyBuffers.Get().(*[copyBytes]byte)
	defer copyBuffers.Put(buf)
	for {
		if _, err := r.Read(buf[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
