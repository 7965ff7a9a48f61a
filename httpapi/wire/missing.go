package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/celler/celler/nix"
)

// MissingPathsRequest asks which of some hash parts a cache does not have.
type MissingPathsRequest struct {
	Cache           string   `json:"cache"`
	StorePathHashes []string `json:"store_path_hashes"`
}

// MissingPathsResponse lists those that are missing, each once, in no order.
type MissingPathsResponse struct {
	MissingPaths []string `json:"missing_paths"`
}

// errTooMany is wrapped in a ShapeError when a list is longer than its bound.
var errTooMany = errors.New("the list is too long")

// DecodeMissingPaths reads a [MissingPathsRequest] as a stream, since it may hold the closure of
// a machine: no more than the parsed hash parts (20 bytes each) is kept. With more
// than limit of them it stops. onCache, if not nil, is called with the cache's
// name as soon as it is known, which for every known client is before the list; its
// error is returned as it is.
func DecodeMissingPaths(body io.Reader, limit int, onCache func(name string) error) (string, []nix.HashPart, error) {
	d := missingDecoder{body: body, dec: json.NewDecoder(body), limit: limit, onCache: onCache}
	if err := d.object(); err != nil {
		return "", nil, err
	}
	switch {
	case d.cache == nil:
		return "", nil, &ShapeError{Field: "cache", Err: errMissing}
	case !d.seenList:
		return "", nil, &ShapeError{Field: "store_path_hashes", Err: errMissing}
	}
	return *d.cache, d.hashParts, nil
}

type missingDecoder struct {
	body      io.Reader
	dec       *json.Decoder
	limit     int
	onCache   func(string) error
	cache     *string
	seenList  bool
	hashParts []nix.HashPart
}

func (d *missingDecoder) object() error {
	if err := d.open("", '{', "an object"); err != nil {
		return err
	}
	for d.dec.More() {
		tok, err := d.dec.Token()
		if err != nil {
			return streamError("", err)
		}
		switch tok {
		case "cache":
			var name string
			if err := d.dec.Decode(&name); err != nil {
				return streamError("cache", err)
			}
			d.cache = &name
			if d.onCache != nil {
				if err := d.onCache(name); err != nil {
					return err
				}
			}
		case "store_path_hashes":
			d.seenList = true
			if err := d.list(); err != nil {
				return err
			}
		default:
			var skipped json.RawMessage
			if err := d.dec.Decode(&skipped); err != nil {
				return streamError("", err)
			}
		}
	}
	if _, err := d.dec.Token(); err != nil {
		return streamError("", err)
	}
	switch _, err := d.dec.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return streamError("", err)
	default:
		return &SyntaxError{Err: errors.New("unexpected data after the object")}
	}
}

// list reads the hash parts. A json.Decoder would make five pieces of garbage of each,
// hundreds of MB for a large closure, so this scans for itself and then sets a new
// Decoder on what follows.
func (d *missingDecoder) list() error {
	const field = "store_path_hashes"
	d.hashParts = nil
	if err := d.open(field, '[', "an array"); err != nil {
		return err
	}
	r := bufio.NewReaderSize(io.MultiReader(d.dec.Buffered(), d.body), listBuffer)
	for first := true; ; first = false {
		c, err := skipSpace(r)
		switch {
		case err != nil:
			return streamError(field, err)
		case c == ']':
			d.body = r
			d.dec = json.NewDecoder(io.MultiReader(strings.NewReader(`{"":0`), r))
			for range 3 { // the brace, the key and the value that stand for what was read
				if _, err := d.dec.Token(); err != nil {
					return streamError("", err)
				}
			}
			return nil
		case !first && c != ',':
			return &SyntaxError{Err: fmt.Errorf("%s: expected a comma or a bracket, found %q", field, c)}
		case !first:
			if c, err = skipSpace(r); err != nil {
				return streamError(field, err)
			}
		}
		if len(d.hashParts) == d.limit {
			return &ShapeError{Field: field, Err: fmt.Errorf("%w: expected at most %d hashes", errTooMany, d.limit)}
		}
		hashPart, err := readHashPart(r, c)
		if err != nil {
			return streamError(field, err)
		}
		d.hashParts = append(d.hashParts, hashPart)
	}
}

// listBuffer is large enough that reading costs nothing beside parsing.
const listBuffer = 32 << 10

// readHashPart reads the rest of a string that begins with c.
func readHashPart(r *bufio.Reader, c byte) (nix.HashPart, error) {
	const field = "store_path_hashes"
	switch {
	case c == '"':
	case c == '{', c == '[', c == '-', '0' <= c && c <= '9', c == 't', c == 'f', c == 'n':
		return nix.HashPart{}, &ShapeError{Field: field, Err: errors.New("expected strings")}
	default:
		return nix.HashPart{}, &SyntaxError{Err: fmt.Errorf("%s: expected a string, found %q", field, c)}
	}
	text, err := r.ReadSlice('"')
	if errors.Is(err, bufio.ErrBufferFull) || err == nil && len(text) != hashPartChars+1 {
		return nix.HashPart{}, &ShapeError{Field: field, Err: fmt.Errorf("expected strings of %d characters, without escapes", hashPartChars)}
	}
	if err != nil {
		return nix.HashPart{}, err
	}
	hashPart, err := nix.ParseHashPart(string(text[:hashPartChars]))
	if err != nil {
		return nix.HashPart{}, &ShapeError{Field: field, Err: err}
	}
	return hashPart, nil
}

// hashPartChars is the length of a hash part in text.
const hashPartChars = 32

// skipSpace returns the first byte that is no white space.
func skipSpace(r *bufio.Reader) (byte, error) {
	for {
		c, err := r.ReadByte()
		if err != nil || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c, err
		}
	}
}

func (d *missingDecoder) open(field string, want json.Delim, what string) error {
	tok, err := d.dec.Token()
	if err != nil {
		return streamError(field, err)
	}
	if tok != want {
		return &ShapeError{Field: field, Err: fmt.Errorf("expected %s", what)}
	}
	return nil
}

// IsTooLong reports whether err says that a list had more members than were allowed.
func IsTooLong(err error) bool { return errors.Is(err, errTooMany) }

// streamError sorts what a json.Decoder over a live body can return: wrong shape, wrong
// syntax, or the body's own error, which is passed through.
func streamError(field string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return &SyntaxError{Err: io.ErrUnexpectedEOF}
	}
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &ShapeError{Field: field, Err: mistyped(err)}
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok || errors.Is(err, io.ErrUnexpectedEOF) {
		return &SyntaxError{Err: err}
	}
	return err
}
