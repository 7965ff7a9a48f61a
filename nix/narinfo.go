package nix

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxNarInfoBytes is the longest narinfo that is parsed. A path with ten thousand
// references stays below one tenth of it.
const MaxNarInfoBytes = 8 << 20

// unknownDeriver is how old versions of Nix write that there is no deriver.
const unknownDeriver = "unknown-deriver"

// A NarInfo describes one store path in one binary cache. Fields are spelt as
// on the wire.
type NarInfo struct {
	StorePath   StorePath
	URL         string      // of the NAR file, relative to the cache or absolute
	Compression string      // "none", "xz", "zstd", …; parsing turns an absent one into "bzip2", as Nix does
	FileHash    Hash        // of the NAR file as served; zero = not said
	FileSize    int64       // of the NAR file as served, bytes; 0 = not said
	NarHash     Hash        // of the NAR
	NarSize     int64       // of the NAR, bytes
	References  []StorePath // in the order given, all in StorePath's store dir
	Deriver     string      // base name; empty = unknown
	System      string      // empty = not said
	Sig         []Signature // in the order given
	CA          string      // content address; empty = not content-addressed
	Extra       []Field     // keys we do not know, in the order given
}

// A Field is one line of a narinfo whose key has no meaning here.
type Field struct {
	Key, Value string
}

// A SyntaxError reports a line of a narinfo that cannot be accepted.
type SyntaxError struct {
	Line int    // from 1; 0 for the text as a whole
	Key  string // may be empty
	Err  error
}

func (e *SyntaxError) Error() string {
	var where string
	if e.Line > 0 {
		where = fmt.Sprintf(" line %d", e.Line)
	}
	if e.Key != "" {
		where += ": " + e.Key
	}
	return fmt.Sprintf("narinfo%s: %v", where, e.Err)
}

func (e *SyntaxError) Unwrap() error { return e.Err }

var (
	errTwice     = errors.New("given twice")
	errMissing   = errors.New("missing or empty")
	errNoColon   = errors.New(`expected "<key>: <value>"`)
	errNoSpace   = errors.New("expected a space after the colon")
	errNoNewline = errors.New("the line does not end in a newline")
	errNumber    = errors.New("not a number of bytes")
	errControl   = errors.New("holds a control character")
)

// ParseNarInfo reads a narinfo. It keeps unknown keys, refuses a known key (Sig
// excepted) that is given twice, and demands what Nix demands: StorePath, URL,
// NarHash and a NarSize above zero.
func ParseNarInfo(text []byte) (*NarInfo, error) {
	if len(text) > MaxNarInfoBytes {
		return nil, &SyntaxError{Err: fmt.Errorf("%d bytes long, the limit is %d", len(text), MaxNarInfoBytes)}
	}
	p := narInfoParser{rest: string(text), info: &NarInfo{}}
	for p.rest != "" {
		if err := p.line(); err != nil {
			return nil, err
		}
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return p.info, nil
}

type narInfoParser struct {
	rest       string
	lineno     int
	info       *NarInfo
	seen       uint16 // bits of narInfoKey
	references string
	refsLine   int
}

type narInfoKey uint8

const (
	keyStorePath narInfoKey = iota
	keyURL
	keyCompression
	keyFileHash
	keyFileSize
	keyNarHash
	keyNarSize
	keyReferences
	keyDeriver
	keySystem
	keyCA
)

func lookupNarInfoKey(key string) (k narInfoKey, known bool) {
	switch key {
	case "StorePath":
		return keyStorePath, true
	case "URL":
		return keyURL, true
	case "Compression":
		return keyCompression, true
	case "FileHash":
		return keyFileHash, true
	case "FileSize":
		return keyFileSize, true
	case "NarHash":
		return keyNarHash, true
	case "NarSize":
		return keyNarSize, true
	case "References":
		return keyReferences, true
	case "Deriver":
		return keyDeriver, true
	case "System":
		return keySystem, true
	case "CA":
		return keyCA, true
	}
	return 0, false
}

func (p *narInfoParser) line() error {
	p.lineno++
	line, rest, found := strings.Cut(p.rest, "\n")
	if !found {
		return &SyntaxError{Line: p.lineno, Err: errNoNewline}
	}
	p.rest = rest
	key, value, found := strings.Cut(line, ":")
	if !found || key == "" {
		return &SyntaxError{Line: p.lineno, Err: errNoColon}
	}
	if value == "" || value[0] != ' ' {
		return &SyntaxError{Line: p.lineno, Key: clip(key), Err: errNoSpace}
	}
	value = value[1:]
	if strings.IndexFunc(line, isControl) >= 0 {
		return &SyntaxError{Line: p.lineno, Key: clip(key), Err: errControl}
	}
	if key == "Sig" {
		sig, err := ParseSignature(value)
		if err != nil {
			return &SyntaxError{Line: p.lineno, Key: key, Err: err}
		}
		p.info.Sig = append(p.info.Sig, sig)
		return nil
	}
	k, known := lookupNarInfoKey(key)
	if !known {
		p.info.Extra = append(p.info.Extra, Field{Key: key, Value: value})
		return nil
	}
	if p.seen&(1<<k) != 0 {
		return &SyntaxError{Line: p.lineno, Key: key, Err: errTwice}
	}
	p.seen |= 1 << k
	if err := p.set(k, value); err != nil {
		return &SyntaxError{Line: p.lineno, Key: key, Err: err}
	}
	return nil
}

func (p *narInfoParser) set(k narInfoKey, value string) (err error) {
	n := p.info
	switch k {
	case keyStorePath:
		n.StorePath, err = ParseStorePath(value)
	case keyURL:
		n.URL = value
		err = checkURL(value)
	case keyCompression:
		n.Compression = value
		err = checkWord(value)
	case keyFileHash:
		n.FileHash, err = ParseHash(value)
	case keyFileSize:
		n.FileSize, err = parseSize(value)
	case keyNarHash:
		n.NarHash, err = ParseHash(value)
	case keyNarSize:
		n.NarSize, err = parseSize(value)
	case keyReferences:
		p.references, p.refsLine = value, p.lineno // needs the store dir
	case keyDeriver:
		if value != unknownDeriver && value != "" {
			n.Deriver = value
			err = checkBase(value)
		}
	case keySystem:
		n.System = value
		err = checkWord(value)
	case keyCA:
		n.CA = value
		err = checkWord(value)
	}
	return err
}

func (p *narInfoParser) finish() error {
	n := p.info
	if n.Compression == "" {
		n.Compression = "bzip2"
	}
	if key, err := n.incomplete(); err != nil {
		return &SyntaxError{Key: key, Err: err}
	}
	if p.references == "" {
		return nil
	}
	n.References = make([]StorePath, 0, strings.Count(p.references, " ")+1)
	for base := range strings.SplitSeq(p.references, " ") {
		if base == "" {
			continue // Nix splits at runs of spaces
		}
		if err := checkBase(base); err != nil {
			return &SyntaxError{Line: p.refsLine, Key: "References", Err: fmt.Errorf("%s: %w", quote(base), err)}
		}
		n.References = append(n.References, StorePath{dir: n.StorePath.dir, base: base})
	}
	return nil
}

// incomplete names a field without which no client accepts the narinfo.
func (n *NarInfo) incomplete() (string, error) {
	switch {
	case n.StorePath.IsZero():
		return "StorePath", errMissing
	case n.URL == "":
		return "URL", errMissing
	case n.NarHash.IsZero():
		return "NarHash", errMissing
	case n.NarSize <= 0:
		return "NarSize", fmt.Errorf("expected more than 0, found %d", n.NarSize)
	}
	return "", nil
}

func parseSize(s string) (int64, error) {
	// ParseInt would accept a sign, and an underscore never.
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, errNumber
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, errNumber
	}
	return n, nil
}

// checkWord accepts a value that stays on its line and is one word.
func checkWord(s string) error {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return fmt.Errorf("%s: character %q is not allowed", quote(s), s[i])
		}
	}
	return nil
}

func checkURL(s string) error {
	if s == "" {
		return errMissing
	}
	return checkWord(s)
}

func clip(key string) string {
	if len(key) > 40 {
		return key[:40] + "…"
	}
	return key
}
