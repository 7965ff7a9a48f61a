package nix

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

const (
	// HashPartLen is the length of a hash part as text.
	HashPartLen = 32
	// MaxNameLen is the longest name Nix accepts in a store path; with the hash
	// part and the dash it makes 244 bytes, so that ".drv.chroot" still fits in
	// the 255 bytes of a file name.
	MaxNameLen = 211
	// maxStoreDirLen is the longest store directory accepted: PATH_MAX of Linux.
	maxStoreDirLen = 4096
	// DefaultStoreDir is where nearly everybody keeps the store.
	DefaultStoreDir StoreDir = "/nix/store"
)

// A StoreDir is the directory that holds store paths, usually "/nix/store": a
// property of a cache, part of what is signed.
type StoreDir string

// ParseStoreDir accepts an absolute, clean path.
func ParseStoreDir(s string) (StoreDir, error) {
	d := StoreDir(s)
	if err := d.Valid(); err != nil {
		return "", err
	}
	return d, nil
}

// Valid reports what is wrong with the store directory, if anything.
func (d StoreDir) Valid() error {
	if err := d.check(); err != nil {
		return fmt.Errorf("store dir %s: %w", quote(string(d)), err)
	}
	return nil
}

func (d StoreDir) check() error {
	switch {
	case d == "":
		return errors.New("empty")
	case len(d) > maxStoreDirLen:
		return fmt.Errorf("%d bytes long, the limit is %d", len(d), maxStoreDirLen)
	case d[0] != '/':
		return errors.New("not an absolute path")
	}
	for rest := string(d[1:]); ; {
		segment, after, more := strings.Cut(rest, "/")
		if segment == "" || segment == "." || segment == ".." {
			return errors.New(`not a clean path: has an empty, "." or ".." segment`)
		}
		if i := strings.IndexFunc(segment, isControl); i >= 0 {
			return errors.New("holds a control character")
		}
		if !more {
			return nil
		}
		rest = after
	}
}

// A HashPart is the 32 characters that begin a store path's base name, packed
// into 160 bits: the key by which a binary cache is asked.
//
// The characters are packed in the order of the text, first character in the
// highest bits, so that HashParts sort as their texts do and share prefixes
// with them. These are not the bytes that Nix computed the hash part from.
type HashPart [20]byte

// ParseHashPart reads 32 nix32 characters.
func ParseHashPart(s string) (HashPart, error) {
	var h HashPart
	if len(s) != HashPartLen {
		return h, fmt.Errorf("hash part %s: expected %d characters, found %d", quote(s), HashPartLen, len(s))
	}
	for i := 0; i < HashPartLen; i += 8 {
		var v uint64
		for j := range 8 {
			digit := nix32Digits[s[i+j]]
			if digit > 31 {
				return HashPart{}, fmt.Errorf("hash part %s: character %q is not in the nix32 alphabet", quote(s), s[i+j])
			}
			v = v<<5 | uint64(digit)
		}
		o := i / 8 * 5
		h[o], h[o+1], h[o+2], h[o+3], h[o+4] = byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
	}
	return h, nil
}

// AppendText appends the 32 characters. It never fails.
func (h HashPart) AppendText(dst []byte) ([]byte, error) {
	for o := 0; o < len(h); o += 5 {
		v := uint64(h[o])<<32 | uint64(h[o+1])<<24 | uint64(h[o+2])<<16 | uint64(h[o+3])<<8 | uint64(h[o+4])
		for shift := 35; shift >= 0; shift -= 5 {
			dst = append(dst, nix32Alphabet[v>>shift&0x1f])
		}
	}
	return dst, nil
}

func (h HashPart) String() string {
	b, _ := h.AppendText(make([]byte, 0, HashPartLen))
	return string(b)
}

// MarshalText is AppendText to a new slice.
func (h HashPart) MarshalText() ([]byte, error) { return h.AppendText(nil) }

// UnmarshalText is ParseHashPart.
func (h *HashPart) UnmarshalText(text []byte) error {
	v, err := ParseHashPart(string(text))
	if err != nil {
		return err
	}
	*h = v
	return nil
}

// A StorePath is the path of one object in a store: comparable, and always
// valid unless it is the zero value.
type StorePath struct {
	dir  StoreDir
	base string
}

// ParseStorePath reads a full path. Everything before the last slash is the
// store directory; use [StorePath.Dir] to see whether it is the one expected.
func ParseStorePath(s string) (StorePath, error) {
	i := strings.LastIndexByte(s, '/')
	if i <= 0 {
		return StorePath{}, fmt.Errorf("store path %s: not an absolute path in a store dir", quote(s))
	}
	p := StorePath{dir: StoreDir(s[:i]), base: s[i+1:]}
	if p.dir != DefaultStoreDir {
		if err := p.dir.check(); err != nil {
			return StorePath{}, fmt.Errorf("store path %s: store dir: %w", quote(s), err)
		}
	}
	if err := checkBase(p.base); err != nil {
		rest, found := strings.CutPrefix(s, string(DefaultStoreDir)+"/")
		if base, _, inside := strings.Cut(rest, "/"); found && inside && checkBase(base) == nil {
			err = fmt.Errorf("expected a store path itself, and this is inside %s/%s", DefaultStoreDir, base)
		}
		return StorePath{}, fmt.Errorf("store path %s: %w", quote(s), err)
	}
	return p, nil
}

// ParseStorePathBase reads the base name, "<hash part>-<name>", of a path in dir.
func ParseStorePathBase(dir StoreDir, base string) (StorePath, error) {
	if dir != DefaultStoreDir {
		if err := dir.Valid(); err != nil {
			return StorePath{}, err
		}
	}
	if err := checkBase(base); err != nil {
		return StorePath{}, fmt.Errorf("store path base name %s: %w", quote(base), err)
	}
	return StorePath{dir: dir, base: base}, nil
}

func checkBase(base string) error {
	if len(base) < HashPartLen+1 {
		return fmt.Errorf("too short: expected a hash part of %d characters, a dash and a name", HashPartLen)
	}
	for i := range HashPartLen {
		if nix32Digits[base[i]] > 31 {
			return fmt.Errorf("character %q of the hash part is not in the nix32 alphabet", base[i])
		}
	}
	if base[HashPartLen] != '-' {
		return errors.New("no dash after the hash part")
	}
	return checkName(base[HashPartLen+1:])
}

// checkName holds Nix's rules for names. A leading dot is legal since the first
// days of Nix; only names whose first dash-separated component is "." or ".."
// are refused (since Nix 2.20), as tools cut names at dashes.
func checkName(name string) error {
	if name == "" {
		return errors.New("the name is empty")
	}
	if len(name) > MaxNameLen {
		return fmt.Errorf("the name is %d characters long, the limit is %d", len(name), MaxNameLen)
	}
	for i := range len(name) {
		if !isNameChar(name[i]) {
			return fmt.Errorf("character %q is not allowed in a name", name[i])
		}
	}
	if name[0] == '.' {
		if first, _, _ := strings.Cut(name, "-"); first == "." || first == ".." {
			return fmt.Errorf("the first dash-separated component of the name is %q", first)
		}
	}
	return nil
}

func isNameChar(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	switch c {
	case '+', '-', '.', '_', '?', '=':
		return true
	}
	return false
}

// Dir is the store directory.
func (p StorePath) Dir() StoreDir { return p.dir }

// Base is "<hash part>-<name>", which is how narinfos write references.
func (p StorePath) Base() string { return p.base }

// Name is what follows the dash; empty for the zero value.
func (p StorePath) Name() string {
	if p.base == "" {
		return ""
	}
	return p.base[HashPartLen+1:]
}

// HashPart is the key of the path in a binary cache; zero for the zero value.
func (p StorePath) HashPart() HashPart {
	if p.base == "" {
		return HashPart{}
	}
	h, _ := ParseHashPart(p.base[:HashPartLen])
	return h
}

// IsZero reports whether p is the zero value, which is no path.
func (p StorePath) IsZero() bool { return p.base == "" }

// Compare orders paths by directory, then by base name: the order of the texts
// within one store.
func (p StorePath) Compare(q StorePath) int {
	return cmp.Or(cmp.Compare(p.dir, q.dir), cmp.Compare(p.base, q.base))
}

// String is the full path; empty for the zero value.
func (p StorePath) String() string {
	if p.base == "" {
		return ""
	}
	return string(p.dir) + "/" + p.base
}

// AppendText appends the full path. It never fails; the zero value is empty.
func (p StorePath) AppendText(dst []byte) ([]byte, error) {
	return p.append(dst), nil
}

func (p StorePath) append(dst []byte) []byte {
	if p.base == "" {
		return dst
	}
	dst = append(dst, p.dir...)
	dst = append(dst, '/')
	return append(dst, p.base...)
}

// MarshalText is AppendText to a new slice.
func (p StorePath) MarshalText() ([]byte, error) { return p.AppendText(nil) }

// UnmarshalText is ParseStorePath; an empty text is the zero value.
func (p *StorePath) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*p = StorePath{}
		return nil
	}
	v, err := ParseStorePath(string(text))
	if err != nil {
		return err
	}
	*p = v
	return nil
}

// maxQuoted bounds how much of a bad text an error message repeats.
const maxQuoted = 300

func quote(s string) string {
	if len(s) > maxQuoted {
		return fmt.Sprintf("%q… (%d bytes)", s[:maxQuoted], len(s))
	}
	return fmt.Sprintf("%q", s)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }
