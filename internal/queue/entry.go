package queue

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/celler/celler/nix"
)

const entryMagic = "CLQ1"

// Bounds on one entry. A derivation has at most a few dozen outputs.
const (
	maxEntryBytes = 1 << 20
	maxPaths      = 4096
	maxCacheBytes = 2048 // a URL
)

// A Target is where paths are to go, and how.
type Target struct {
	Cache          string // a cache reference; "" = wherever the agent pushes to
	NoClosure      bool   // push the paths only, not what they refer to
	IgnoreUpstream bool   // push what an upstream cache has as well
}

// An Entry is some store paths that are to be pushed.
type Entry struct {
	Target  Target
	Queued  time.Time
	Deriver nix.StorePath // zero = unknown
	Paths   []nix.StorePath
}

// check finds what could not be read back.
func (e *Entry) check() error {
	switch {
	case len(e.Paths) == 0:
		return errors.New("an entry without paths")
	case len(e.Paths) > maxPaths:
		return fmt.Errorf("%d paths in one entry, at most %d", len(e.Paths), maxPaths)
	case len(e.Target.Cache) > maxCacheBytes:
		return fmt.Errorf("a cache reference of %d bytes, at most %d", len(e.Target.Cache), maxCacheBytes)
	case strings.ContainsFunc(e.Target.Cache, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\ufffd' }):
		return fmt.Errorf("cache reference %q: expected neither spaces nor control characters", e.Target.Cache)
	case e.Queued.UnixNano() < 0 || e.Queued.Year() > 2200:
		return fmt.Errorf("queued at %v: expected a time between 1970 and 2200", e.Queued)
	}
	for _, p := range e.Paths {
		if p.IsZero() {
			return errors.New("an entry with an empty path")
		}
	}
	return nil
}

// AppendEntry encodes e, which must be within the bounds: see [Queue.Add].
func AppendEntry(dst []byte, e Entry) []byte {
	start := len(dst)
	line := func(words ...string) { dst = append(append(dst, strings.Join(words, " ")...), '\n') }
	line(entryMagic)
	line("queued", e.Queued.UTC().Format(time.RFC3339Nano))
	if e.Target.Cache != "" {
		line("cache", e.Target.Cache)
	}
	if e.Target.NoClosure {
		line("no-closure")
	}
	if e.Target.IgnoreUpstream {
		line("ignore-upstream")
	}
	if !e.Deriver.IsZero() {
		line("deriver", e.Deriver.String())
	}
	for _, p := range e.Paths {
		line("path", p.String())
	}
	sum := sha256.Sum256(dst[start:])
	line("sha256", hex.EncodeToString(sum[:]))
	return dst
}

// errNewer is a text that another version of celler wrote.
var errNewer = errors.New("it was written by a newer celler")

// DecodeEntry decodes a whole entry, and nothing but one.
func DecodeEntry(src []byte) (Entry, error) {
	var e Entry
	if len(src) > maxEntryBytes {
		return e, fmt.Errorf("%d bytes, at most %d", len(src), maxEntryBytes)
	}
	if magic, _, _ := bytes.Cut(src, []byte("\n")); len(magic) == 4 && string(magic) != entryMagic && bytes.HasPrefix(magic, []byte("CLQ")) {
		return e, errNewer
	}
	// The sum first: a text that is not as it was written is not worth an explanation.
	const last = len("sha256 ") + 2*sha256.Size + 1
	if len(src) < last {
		return e, fmt.Errorf("%d bytes, too short for an entry", len(src))
	}
	body, end := src[:len(src)-last], src[len(src)-last:]
	sum := sha256.Sum256(body)
	if want := "sha256 " + hex.EncodeToString(sum[:]) + "\n"; string(end) != want {
		return e, fmt.Errorf("last line expected %q, found %.80q", strings.TrimSuffix(want, "\n"), bytes.TrimSuffix(end, []byte("\n")))
	}
	if err := e.decodeBody(string(body)); err != nil {
		return Entry{}, err
	}
	if err := e.check(); err != nil {
		return Entry{}, err
	}
	if !bytes.Equal(AppendEntry(nil, e), src) {
		return Entry{}, errors.New("lines that are out of order, twice there, or spelt in another way")
	}
	return e, nil
}

func (e *Entry) decodeBody(body string) error {
	head, body, _ := strings.Cut(body, "\n")
	if head != entryMagic {
		return fmt.Errorf("first line expected %q, found %.20q", entryMagic, head)
	}
	for line := range strings.Lines(body) {
		line, ended := strings.CutSuffix(line, "\n")
		if !ended {
			return fmt.Errorf("line %.80q does not end", line)
		}
		key, value, _ := strings.Cut(line, " ")
		var err error
		switch key {
		case "queued":
			e.Queued, err = time.Parse(time.RFC3339Nano, value)
			e.Queued = e.Queued.UTC()
		case "cache":
			e.Target.Cache = value
		case "no-closure":
			e.Target.NoClosure = true
		case "ignore-upstream":
			e.Target.IgnoreUpstream = true
		case "deriver":
			e.Deriver, err = nix.ParseStorePath(value)
		case "path":
			var p nix.StorePath
			if p, err = nix.ParseStorePath(value); len(e.Paths) > maxPaths {
				return fmt.Errorf("more than %d paths", maxPaths)
			}
			e.Paths = append(e.Paths, p)
		default:
			return fmt.Errorf("line %.80q: %w", line, errNewer)
		}
		if err != nil {
			return fmt.Errorf("line %.80q: %w", line, err)
		}
	}
	return nil
}
