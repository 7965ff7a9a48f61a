package httpapi

import (
	"log/slog"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// maxClosureWalks is how many questions about closures are worked on at once. Each may hold
// some 10 MB.
const maxClosureWalks = 4

// asksClosures reports whether questions about closures are answered, which is announced in
// the configuration of caches.
func (s *server) asksClosures() bool { return s.delta != nil && s.opts.Past == "" }

// deltaPaths answers POST /_api/v1/delta/{cache}/paths: which paths are missing, and whether
// all is there that the others lead to.
//
// That a path is there counts as a use of it, of those that were asked about and not of what
// they lead to: a collection keeps the closure of whatever it keeps.
func (s *server) deltaPaths(x *exchange) error {
	cache, err := x.admitDelta(false)
	if err != nil {
		return err
	}
	if err := x.wantBinary(); err != nil {
		return err
	}
	body, err := x.limitedBody(int64(wire.DeltaQueryPaths * wire.HashPartBytes))
	if err != nil {
		return err
	}
	hashParts, err := wire.ReadHashParts(body, wire.DeltaQueryPaths)
	if err != nil {
		return queryError(err)
	}
	ctx := x.r.Context()
	select {
	case s.closureSlots <- struct{}{}:
		defer func() { <-s.closureSlots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	seq := s.cat.Seq()
	found, err := s.cat.ClosurePresence(ctx, cache.Name, hashParts)
	if err != nil {
		return err
	}
	if present := presentOf(hashParts, &found); len(present) > 0 {
		recorded, err := s.opts.Uses.Present(ctx, cache.Name, present)
		if err != nil {
			return err
		}
		if recorded { // what went before its use was recorded is missing after all
			if found, err = s.cat.ClosurePresence(ctx, cache.Name, hashParts); err != nil {
				return err
			}
		}
	}
	result := wire.PathsResult{Missing: wire.MakeBitmap(len(hashParts))}
	missing := 0
	for i, is := range found.Missing {
		if is {
			result.Missing.Set(i)
			missing++
		}
	}
	if found.Walked {
		result.Closure = &wire.Closure{Paths: found.Paths, Absent: len(found.Absent)}
		if len(found.Absent) > 0 {
			result.Closure.AbsentSum = wire.AbsentSum(found.Absent)
		}
	}
	x.note(slog.Int("paths", len(hashParts)), slog.Int("missing", missing))
	x.setSeq(seq)
	x.sendJSON(result)
	return nil
}

// presentOf returns those of hashParts that are there.
func presentOf(hashParts []nix.HashPart, found *catalog.ClosurePresence) []nix.HashPart {
	present := make([]nix.HashPart, 0, len(hashParts))
	for i, hashPart := range hashParts {
		if !found.Missing[i] {
			present = append(present, hashPart)
		}
	}
	return present
}
