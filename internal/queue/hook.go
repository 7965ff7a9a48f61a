package queue

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/celler/celler/nix"
)

// maxDerivationBytes bounds what is read of a derivation. Its outputs come first, so the
// rest does not matter.
const maxDerivationBytes = 256 << 10

// ParsePaths parses what a hook is given. What cannot be parsed does not keep the rest
// from being returned.
func ParsePaths(texts []string) ([]nix.StorePath, error) {
	var paths []nix.StorePath
	var bad error
	for _, text := range texts {
		p, err := nix.ParseStorePath(text)
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		paths = append(paths, p)
	}
	return paths, bad
}

// OutputsOf reads from the file of a derivation which paths it makes, for those versions
// of Nix, 2.8.0 among them, that tell a hook the derivation but not what it made.
func OutputsOf(deriver nix.StorePath) ([]nix.StorePath, error) {
	text, err := readFile(deriver.String(), maxDerivationBytes)
	if err != nil {
		return nil, fmt.Errorf("read derivation: %w", err)
	}
	paths, err := DecodeOutputs(text)
	if err != nil {
		return nil, fmt.Errorf("read derivation %v: %w", deriver, err)
	}
	return paths, nil
}

// DecodeOutputs reads the outputs at the beginning of a derivation's text:
//
//	Derive([("out","/nix/store/...","",""),("doc","/nix/store/...","","")],...
func DecodeOutputs(src []byte) ([]nix.StorePath, error) {
	rest, ok := bytes.CutPrefix(src, []byte("Derive(["))
	if !ok {
		return nil, fmt.Errorf("beginning expected %q, found %.20q", "Derive([", src)
	}
	var paths []nix.StorePath
	for len(paths) < maxPaths {
		if rest, ok = bytes.CutPrefix(rest, []byte("(")); !ok {
			return nil, fmt.Errorf("an output expected, found %.20q", rest)
		}
		for field, end := range []string{",", ",", ",", ")"} {
			value, after, err := quoted(rest)
			if err != nil {
				return nil, err
			}
			if rest, ok = bytes.CutPrefix(after, []byte(end)); !ok {
				return nil, fmt.Errorf("%q expected, found %.20q", end, after)
			}
			if field != 1 {
				continue
			}
			if len(value) == 0 {
				return nil, errors.New("the names of its outputs depend on their contents")
			}
			p, err := nix.ParseStorePath(string(value))
			if err != nil {
				return nil, err
			}
			paths = append(paths, p)
		}
		if bytes.HasPrefix(rest, []byte("]")) {
			return paths, nil
		}
		if rest, ok = bytes.CutPrefix(rest, []byte(",")); !ok {
			return nil, fmt.Errorf("%q expected, found %.20q", ",", rest)
		}
	}
	return nil, fmt.Errorf("more than %d outputs", maxPaths)
}

// quoted cuts off a string in quotes. Those of outputs have nothing in them that would be
// escaped.
func quoted(src []byte) (value, rest []byte, err error) {
	if len(src) > 0 && src[0] == '"' {
		if end := bytes.IndexByte(src[1:], '"'); end >= 0 && bytes.IndexByte(src[1:1+end], '\\') < 0 {
			return src[1 : 1+end], src[2+end:], nil
		}
	}
	return nil, nil, fmt.Errorf("a string in quotes expected, found %.20q", src)
}
