package keyspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/celler/celler/nix"
)

const (
	// MaxReferences bounds the references of one path. The largest environments,
	// those of TeX, have several thousand.
	MaxReferences = 1 << 14
	// MaxSigs bounds the signatures that came with an upload.
	MaxSigs = 64
	// MaxPathBytes bounds a whole row, so that one always fits in one operation of
	// the log: 100 bytes for each reference there may be, and far more than an
	// upload may say of a path.
	MaxPathBytes = 2 << 20

	maxSize = 1 << 56 // bytes; far above any NAR and far below overflow
)

// KeyID tells which key pair made a signature, so that one made by a key that
// has been replaced is not served: the first bytes of a hash over name and
// public key. The zero KeyID goes with an empty signature.
type KeyID [8]byte

// Path is one store path in one cache: all that a narinfo says, and who put it
// there.
type Path struct {
	Cache     CacheName     // not in the row, whose key has the CacheID; filled in by the catalog
	StorePath nix.StorePath // the hash part is of the key

	NarHash    [32]byte
	NarSize    int64           // bytes of the plain NAR
	FileSize   int64           // bytes of the served form
	References []nix.StorePath // in the order given, all in the store dir of the path
	Deriver    string          // as narinfos spell it, "" if unknown
	System     string          // "" if unknown
	CA         string          // content address, "" if input-addressed
	Sigs       []string        // signatures that came with the upload
	Sig        string          // the cache's own, "<key name>:<base64>"
	SigKey     KeyID           // which key made Sig
	By         string          // subject of the token that published the path
	Created    time.Time
}

// Valid reports what is wrong with the row, if anything.
func (p *Path) Valid() error {
	if p.StorePath.IsZero() {
		return errors.New("path row has no store path")
	}
	if err := p.valid(); err != nil {
		return fmt.Errorf("path %s: %w", p.StorePath.Base(), err)
	}
	return nil
}

func (p *Path) valid() error {
	if err := validTime(p.Created); err != nil {
		return err
	}
	if uint64(p.NarSize) > maxSize || uint64(p.FileSize) > maxSize {
		return fmt.Errorf("NAR size %d or file size %d is outside 0..%d", p.NarSize, p.FileSize, int64(maxSize))
	}
	if len(p.References) > MaxReferences {
		return fmt.Errorf("%d references, want at most %d", len(p.References), MaxReferences)
	}
	for _, r := range p.References {
		if r.IsZero() || r.Dir() != p.StorePath.Dir() {
			return fmt.Errorf("reference %q is not in store dir %s", r.String(), p.StorePath.Dir())
		}
	}
	if len(p.Sigs) > MaxSigs {
		return fmt.Errorf("%d signatures, want at most %d", len(p.Sigs), MaxSigs)
	}
	for _, s := range p.Sigs {
		if s == "" {
			return errors.New("an uploaded signature is empty")
		}
		if err := validText("signature", s); err != nil {
			return err
		}
	}
	if (p.Sig == "") != (p.SigKey == KeyID{}) {
		return errors.New("the cache's signature and the id of its key are not both there")
	}
	for _, f := range [...]struct{ what, text string }{
		{"deriver", p.Deriver}, {"system", p.System}, {"content address", p.CA}, {"subject", p.By}, {"signature", p.Sig},
	} {
		if err := validText(f.what, f.text); err != nil {
			return err
		}
	}
	return nil
}

func validText(what, s string) error {
	if len(s) > maxText {
		return fmt.Errorf("%s has %d bytes, want at most %d", what, len(s), maxText)
	}
	if !printable(s) {
		return fmt.Errorf("%s %.200q has a control character", what, s)
	}
	return nil
}

// AppendPathPrefix appends what the keys of all paths of a cache begin with.
func AppendPathPrefix(dst []byte, cache CacheID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, PathPrefix), uint32(cache))
}

// AppendPathKey appends the key of a path.
func AppendPathKey(dst []byte, cache CacheID, hashPart nix.HashPart) []byte {
	return append(AppendPathPrefix(dst, cache), hashPart[:]...)
}

// DecodePathKey returns what the key of a path says.
func DecodePathKey(key []byte) (CacheID, nix.HashPart, error) {
	rest, ok := cutPrefix(key, PathPrefix, 4+len(nix.HashPart{}))
	if !ok {
		return 0, nix.HashPart{}, keyError("path", key)
	}
	cache := CacheID(binary.BigEndian.Uint32(rest))
	if cache == 0 {
		return 0, nix.HashPart{}, keyError("path", key)
	}
	return cache, nix.HashPart(rest[4:]), nil
}

// AppendPath appends the value of p, which must be valid.
func AppendPath(dst []byte, p *Path) []byte {
	dst = append(dst, rowVersion)
	dst = appendTime(dst, p.Created)
	dst = appendText(dst, p.StorePath.Name())
	dir := string(p.StorePath.Dir())
	if p.StorePath.Dir() == nix.DefaultStoreDir {
		dir = ""
	}
	dst = appendText(dst, dir)
	dst = append(dst, p.NarHash[:]...)
	dst = binary.AppendUvarint(dst, uint64(p.NarSize))
	dst = binary.AppendUvarint(dst, uint64(p.FileSize))
	dst = binary.AppendUvarint(dst, uint64(len(p.References)))
	for _, r := range p.References {
		hp := r.HashPart()
		dst = append(dst, hp[:]...)
		dst = appendText(dst, r.Name())
	}
	dst = appendText(dst, p.Deriver)
	dst = appendText(dst, p.System)
	dst = appendText(dst, p.CA)
	dst = appendText(dst, p.By)
	dst = binary.AppendUvarint(dst, uint64(len(p.Sigs)))
	for _, s := range p.Sigs {
		dst = appendText(dst, s)
	}
	dst = appendText(dst, p.Sig)
	if p.Sig != "" {
		dst = append(dst, p.SigKey[:]...)
	}
	return dst
}

// DecodePath decodes the row of one path; Cache stays empty.
func DecodePath(key, value []byte) (Path, error) {
	_, hashPart, err := DecodePathKey(key)
	if err != nil {
		return Path{}, err
	}
	if len(value) > MaxPathBytes {
		return Path{}, fmt.Errorf("decode path row: value has %d bytes, want at most %d", len(value), MaxPathBytes)
	}
	d := decoder[string]{what: "path", src: string(value)}
	d.version()
	var p Path
	p.Created = d.time()
	name := d.text()
	dir := nix.DefaultStoreDir
	if s := d.text(); s != "" {
		dir = nix.StoreDir(s)
		if dir == nix.DefaultStoreDir {
			d.fail("the usual store dir is spelt out")
		}
	}
	d.fill(p.NarHash[:])
	p.NarSize = int64(d.upTo(maxSize, "NAR size"))
	p.FileSize = int64(d.upTo(maxSize, "file size"))
	d.storePaths(&p, hashPart, name, dir)
	p.Deriver = d.text()
	p.System = d.text()
	p.CA = d.text()
	p.By = d.text()
	if n := d.count(2); n > 0 {
		p.Sigs = make([]string, n)
		for i := range p.Sigs {
			p.Sigs[i] = d.text()
		}
	}
	if p.Sig = d.text(); p.Sig != "" {
		d.fill(p.SigKey[:])
	}
	if err := d.end(); err != nil {
		return Path{}, err
	}
	if err := p.Valid(); err != nil {
		return Path{}, fmt.Errorf("decode path row: %w", err)
	}
	return p, nil
}

// storePaths reads the references and makes all store paths of the row out of
// one text, so that a row costs two allocations for them however many there are.
func (d *decoder[T]) storePaths(p *Path, hashPart nix.HashPart, name string, dir nix.StoreDir) {
	n := d.count(len(hashPart) + 2)
	if n > MaxReferences {
		d.fail("%d references, want at most %d", n, MaxReferences)
	}
	if d.err != nil {
		return
	}
	rest := *d // a first pass to learn the lengths
	size := baseLen(len(name))
	for range n {
		rest.take(len(hashPart))
		size += baseLen(len(rest.text()))
	}
	if rest.err != nil {
		d.err = rest.err
		return
	}
	var b strings.Builder
	b.Grow(size)
	p.StorePath = d.storePath(&b, dir, hashPart, name)
	if n == 0 {
		return
	}
	p.References = make([]nix.StorePath, n)
	for i := range p.References {
		var hp nix.HashPart
		d.fill(hp[:])
		p.References[i] = d.storePath(&b, dir, hp, string(d.text()))
	}
}

func baseLen(name int) int { return nix.HashPartLen + len("-") + name }

// storePath writes one base name at the end of b, which has room for it, and
// returns the path made of it.
func (d *decoder[T]) storePath(b *strings.Builder, dir nix.StoreDir, hashPart nix.HashPart, name string) nix.StorePath {
	start := b.Len()
	var text [nix.HashPartLen]byte
	hp, _ := hashPart.AppendText(text[:0])
	b.Write(hp)
	b.WriteByte('-')
	b.WriteString(name)
	sp, err := nix.ParseStorePathBase(dir, b.String()[start:])
	if err != nil {
		d.fail("%w", err)
	}
	return sp
}
