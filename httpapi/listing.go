package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nar"
)

const (
	listingSuffix = ".ls"
	typeJSON      = "application/json"

	// maxListingMade bounds a listing that is made when somebody asks: two hundred thousand
	// files. maxListingsMade is how many are in the making at once.
	maxListingMade  = 16 << 20
	maxListingsMade = 4
)

// listing answers GET /{cache}/{hash part}.ls.
func (s *server) listing(x *exchange, base string) error {
	cache, err := x.authorisePull()
	if err != nil {
		return err
	}
	hashPart, err := nix.ParseHashPart(base)
	if err != nil {
		return errNoSuchObject.because(err)
	}
	path, err := s.cat.Path(x.r.Context(), cache.Name, hashPart)
	if err != nil {
		return err
	}
	text, err := s.listingOf(x, path.NarHash)
	if err != nil {
		return err
	}
	x.cacheable(&cache, ageMeta)
	return x.sendText(typeJSON, text)
}

// listingOf returns the listing of a NAR: the one that was made when it came, or one made
// now, for which only what lies between the large files is read.
func (s *server) listingOf(x *exchange, narHash [32]byte) ([]byte, error) {
	ctx := x.r.Context()
	packed, kept, err := s.cat.Listing(narHash)
	if err != nil {
		return nil, err
	}
	if kept {
		return s.texts.DecodeAll(packed, nil)
	}
	select {
	case s.listSlots <- struct{}{}:
		defer func() { <-s.listSlots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	recipe, err := s.cat.Recipe(ctx, narHash)
	if err != nil {
		return nil, err
	}
	plain, err := s.chunks.OpenPart(ctx, &recipe, 0, recipe.Size)
	if err != nil {
		return nil, errIncomplete.because(err)
	}
	defer plain.Close()
	s.metrics.listings.Inc()
	return listNar(plain)
}

func listNar(plain io.ReadSeeker) ([]byte, error) {
	r := nar.NewSeekReader(plain)
	var l nar.Lister
	for l.Len() <= maxListingMade {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			text, err := l.Finish()
			if err != nil {
				return nil, errNotListed.because(err)
			}
			return text, nil
		}
		// Of many small files that came by chunks only the hash was checked.
		if bad, ok := errors.AsType[*nar.SyntaxError](err); ok && bad.Err == nil {
			return nil, errNotListed.because(err)
		}
		if err != nil {
			return nil, errIncomplete.because(err)
		}
		l.Entry(h)
	}
	return nil, errNotListed
}

// putListing answers PUT /{cache}/{hash part}.ls, which plain Nix sends before the NAR if
// it is told to. What is served is made of the NAR itself; this is looked at and dropped.
func (s *server) putListing(x *exchange, base string) error {
	if _, err := nix.ParseHashPart(base); err != nil {
		return requestError("%v", err)
	}
	src, stop, err := x.plainBody()
	if err != nil {
		return err
	}
	defer stop()
	// Not kept in memory: it may be long, and many may come at once.
	body := &limitedText{src: src, left: maxTextBytes, what: "listing"}
	begin, err := io.ReadAll(io.LimitReader(body, sniffBytes))
	if err != nil {
		return bodyError(err)
	}
	if !bytes.HasPrefix(bytes.TrimLeft(begin, " \t\r\n"), []byte("{")) {
		return requestError("the listing is not JSON")
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return bodyError(err)
	}
	return x.sendEmpty()
}

// file is an entry of a listing.
type file struct {
	Type       string           `json:"type"`
	Size       int64            `json:"size"`
	Executable bool             `json:"executable"`
	NarOffset  int64            `json:"narOffset"`
	Target     string           `json:"target"`
	Entries    map[string]*file `json:"entries"`
}

// tree decodes a listing of ours.
func tree(text []byte) (*file, error) {
	var l struct {
		Root *file `json:"root"`
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, err
	}
	if l.Root == nil {
		return nil, errors.New("the listing has no root")
	}
	return l.Root, nil
}
