package httpapi

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

const (
	// maxJSONBytes is the longest JSON body but that of get-missing-paths; Attic's bound.
	maxJSONBytes = 2 << 20
	// missingPathBytes is what one hash part costs on the wire at most: 32 characters,
	// quotes, comma and a little white space.
	missingPathBytes = 48
	// maxLongMissing is how many get-missing-paths longer than maxJSONBytes are worked on
	// at once; each may hold some tens of MB.
	maxLongMissing = 4
)

// missingPaths answers POST /_api/v1/get-missing-paths.
func (s *server) missingPaths(x *exchange) error {
	if err := x.wantJSON(); err != nil {
		return err
	}
	limit := int64(maxJSONBytes)
	if n := x.r.ContentLength; n < 0 || n > maxJSONBytes {
		// Only who may push somewhere gets to send a long list.
		if x.grant.Anonymous() {
			return errUnauthorized
		}
		limit = int64(s.opts.MaxMissingPaths)*missingPathBytes + maxJSONBytes
		select {
		case s.missingSlots <- struct{}{}:
			defer func() { <-s.missingSlots }()
		case <-x.r.Context().Done():
			return x.r.Context().Err()
		}
	}
	body, err := x.boundedBody(limit)
	if err != nil {
		return err
	}
	authorised := false
	name, hashParts, err := wire.DecodeMissingPaths(body, s.opts.MaxMissingPaths, func(name string) error {
		authorised = true
		return x.authoriseNamed(name, auth.Permission{Push: true})
	})
	switch {
	case wire.IsTooLong(err):
		return extractorError(http.StatusRequestEntityTooLarge, "%v", err)
	case err != nil:
		return jsonError(err)
	case !authorised:
		panic("httpapi: decoded a request without its cache")
	}
	cache, _, err := x.authorise(name, auth.Permission{Push: true})
	if err != nil {
		return err
	}
	missing, err := s.cat.MissingPaths(x.r.Context(), cache.Name, hashParts)
	if err != nil {
		return err
	}
	if present := without(hashParts, missing); len(present) > 0 {
		recorded, err := s.opts.Uses.Present(x.r.Context(), cache.Name, present)
		if err != nil {
			return err
		}
		if recorded {
			if missing, err = s.cat.MissingPaths(x.r.Context(), cache.Name, hashParts); err != nil {
				return err
			}
		}
	}
	x.note(slog.String("cache", name))
	return x.sendMissing(missing)
}

// without returns those of all that are not in missing, which is sorted.
func without(all, missing []nix.HashPart) []nix.HashPart {
	present := make([]nix.HashPart, 0, max(0, len(all)-len(missing)))
	for _, hashPart := range all {
		if _, found := slices.BinarySearchFunc(missing, hashPart, func(a, b nix.HashPart) int { return bytes.Compare(a[:], b[:]) }); !found {
			present = append(present, hashPart)
		}
	}
	return present
}

// sendMissing writes the response as it goes: a million hash parts are 35 MB of JSON.
func (x *exchange) sendMissing(missing []nix.HashPart) error {
	const item = len(`"00bgd045z0d4icpbc2yyz4gx48ak44la",`)
	x.Header().Set("Content-Type", "application/json")
	x.Header().Set("Cache-Control", "no-store")
	buf := make([]byte, 0, copyBytes)
	buf = append(buf, `{"missing_paths":[`...)
	for i, hashPart := range missing {
		if len(buf)+item > cap(buf) {
			if _, err := x.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = append(buf, '"')
		buf, _ = hashPart.AppendText(buf)
		buf = append(buf, '"')
	}
	buf = append(buf, `]}`...)
	_, _ = x.Write(buf) // the peer is gone, and there is nobody to tell
	return nil
}

// authoriseNamed is authorise for a name that stands in a body, where a bad one is a
// matter of the body's shape.
func (x *exchange) authoriseNamed(name string, need auth.Permission) error {
	if _, err := catalog.ParseCacheName(name); err != nil {
		return extractorError(http.StatusUnprocessableEntity, "Failed to deserialize the JSON body into the target type: cache: %v", err)
	}
	_, _, err := x.authorise(name, need)
	return err
}

// wantJSON checks the Content-Type.
func (x *exchange) wantJSON() error {
	mediaType, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err == nil && (mediaType == "application/json" || strings.HasPrefix(mediaType, "application/") && strings.HasSuffix(mediaType, "+json")) {
		return nil
	}
	return extractorError(http.StatusUnsupportedMediaType, "Expected request with `Content-Type: application/json`")
}

// boundedBody returns the body, which fails when it turns out to be longer than limit.
func (x *exchange) boundedBody(limit int64) (io.Reader, error) {
	if x.r.ContentLength > limit {
		return nil, bodyTooLong(limit)
	}
	return &boundedReader{src: x.body, left: limit, limit: limit, tooLong: bodyTooLong}, nil
}

func bodyTooLong(limit int64) error {
	return extractorError(http.StatusRequestEntityTooLarge, "Failed to buffer the request body: length limit of %d bytes exceeded", limit)
}

type boundedReader struct {
	src         io.Reader
	left, limit int64
	tooLong     func(limit int64) error
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.src.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return 0, b.tooLong(b.limit)
	}
	return n, err
}

// readJSON reads a whole short JSON body.
func (x *exchange) readJSON() ([]byte, error) {
	if err := x.wantJSON(); err != nil {
		return nil, err
	}
	body, err := x.boundedBody(maxJSONBytes)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, bodyError(err)
	}
	return raw, nil
}

// jsonError gives a decoding error its status.
func jsonError(err error) error {
	if _, ok := errors.AsType[*refusal](err); ok {
		return err
	}
	if _, ok := errors.AsType[*wire.ShapeError](err); ok {
		return extractorError(http.StatusUnprocessableEntity, "Failed to deserialize the JSON body into the target type: %v", err)
	}
	if _, ok := errors.AsType[*wire.SyntaxError](err); ok {
		return extractorError(http.StatusBadRequest, "Failed to parse the request body as JSON: %v", err)
	}
	return bodyError(err)
}
