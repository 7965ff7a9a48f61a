package httpapi

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
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

// chain checks that receipts are the computation of a NAR's hash, done in pieces: the
// first begins at the beginning, each where the one before ends, and the last ends in the
// hash.
func chain(rs []receipt, up *upload, m Mutants) error {
	if !rs[0].begins && !m.noStart() {
		return errors.New("receipt 0 is not of the beginning of a NAR")
	}
	plain := rs[0].plain()
	for i := 1; i < len(rs); i++ {
		if !rs[i].follows(&rs[i-1]) && !m.noLinks() {
			return fmt.Errorf("receipt %d does not begin where receipt %d ends", i, i-1)
		}
		plain += rs[i].plain()
	}
	last := &rs[len(rs)-1].after
	switch {
	case plain != up.size || last.Length() != up.size && !m.noStart():
		return fmt.Errorf("they are for %d bytes, and the NAR is said to have %d", plain, up.size)
	case last.Sum() != up.narHash:
		return fmt.Errorf("they lead to %s, and the NAR hash is said to be %s", nix.SHA256Hash(last.Sum()), nix.SHA256Hash(up.narHash))
	}
	return nil
}
