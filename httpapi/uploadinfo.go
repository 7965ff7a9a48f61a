package httpapi

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// readUploadInfo finds the upload info: in front of the NAR if a header of either
// family gives its length, else in a header of either family.
func (x *exchange) readUploadInfo() (wire.UploadInfo, error) {
	raw, err := x.uploadInfoText()
	if err != nil {
		return wire.UploadInfo{}, err
	}
	info, err := wire.DecodeUploadInfo(raw)
	if err != nil {
		return wire.UploadInfo{}, requestError("upload info: %v", err)
	}
	return info, nil
}

func (x *exchange) uploadInfoText() ([]byte, error) {
	limit := x.s.opts.MaxUploadInfoBytes
	if text := x.eitherHeader(wire.HeaderAtticNarInfoPreamble, wire.HeaderCellerNarInfoPreamble); text != "" {
		size, err := strconv.ParseUint(strings.TrimPrefix(text, "+"), 10, 63)
		switch {
		case errors.Is(err, strconv.ErrRange), err == nil && size > uint64(limit):
			return nil, requestError("Upload info is too large: expected at most %d bytes", limit)
		case err != nil:
			return nil, requestError("%s: expected a number of bytes, found %.40q", wire.HeaderAtticNarInfoPreamble, text)
		}
		var raw bytes.Buffer // grows with what arrives, not with what was announced
		switch n, err := io.Copy(&raw, io.LimitReader(x.body, int64(size))); {
		case err != nil:
			return nil, bodyError(err)
		case n < int64(size):
			return nil, requestError("Upload info doesn't match specified size: expected %d bytes, received %d", size, n)
		}
		return raw.Bytes(), nil
	}
	text := x.eitherHeader(wire.HeaderAtticNarInfo, wire.HeaderCellerNarInfo)
	switch {
	case text == "":
		return nil, requestError("%s or %s must be set", wire.HeaderAtticNarInfo, wire.HeaderCellerNarInfo)
	case len(text) > limit:
		return nil, requestError("Upload info is too large: expected at most %d bytes", limit)
	}
	return []byte(text), nil
}

func (x *exchange) eitherHeader(one, other string) string {
	if text := x.r.Header.Get(one); text != "" {
		return text
	}
	return x.r.Header.Get(other)
}

// upload is an upload info whose every part makes sense.
type upload struct {
	path       nix.StorePath
	references []nix.StorePath
	deriver    string
	sigs       []string
	narHash    [32]byte
	size       int64
}

// parseUploadInfo checks what can be checked without the cache. What passes ends up in
// a text that we sign.
func parseUploadInfo(info *wire.UploadInfo) (*upload, error) {
	hashPart, err := nix.ParseHashPart(info.StorePathHash)
	if err != nil {
		return nil, requestError("store_path_hash: %v", err)
	}
	up := &upload{size: info.NarSize}
	if up.path, err = nix.ParseStorePath(info.StorePath); err != nil {
		return nil, requestError("store_path: %v", err)
	}
	if up.path.HashPart() != hashPart {
		return nil, requestError("store path %s has not the hash part %s", up.path, hashPart)
	}
	up.references = make([]nix.StorePath, 0, len(info.References))
	for _, text := range info.References {
		ref, err := nix.ParseStorePathBase(up.path.Dir(), text)
		if err != nil {
			return nil, requestError("reference: %v", err)
		}
		up.references = append(up.references, ref)
	}
	if text := deref(info.CA); text != "" {
		ca, err := nix.ParseContentAddress(text)
		if err != nil {
			return nil, requestError("ca: %v", err)
		}
		if err := ca.Check(up.path, up.references); err != nil {
			return nil, requestError("ca: %v", err)
		}
	}
	narHash, err := nix.ParseHash(info.NarHash)
	if err != nil {
		return nil, requestError("nar_hash: %v", err)
	}
	var ok bool
	if up.narHash, ok = narHash.Sum256(); !ok {
		return nil, requestError("nar_hash: expected a SHA-256 hash, found %s", narHash)
	}
	if up.size <= 0 {
		return nil, requestError("nar_size: expected the size of a NAR, found %d", up.size)
	}
	if up.deriver, err = parseDeriver(up.path.Dir(), deref(info.Deriver)); err != nil {
		return nil, err
	}
	// Well-formed signatures are kept and served; others are of no use to anybody,
	// and stock servers take them.
	for _, text := range info.Sigs {
		if _, err := nix.ParseSignature(text); err == nil {
			up.sigs = append(up.sigs, text)
		}
	}
	return up, nil
}

// parseDeriver accepts a base name, a whole store path, or one of the ways to say
// nothing, and gives the base name.
func parseDeriver(dir nix.StoreDir, text string) (string, error) {
	if text == "" || text == "unknown-deriver" {
		return "", nil
	}
	if path, err := nix.ParseStorePath(text); err == nil && path.Dir() == dir {
		return path.Base(), nil
	}
	path, err := nix.ParseStorePathBase(dir, text)
	if err != nil {
		return "", requestError("deriver: %v", err)
	}
	return path.Base(), nil
}
