package nix

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// AppendText appends the narinfo. It fails, appending nothing, if a field is
// missing or holds what cannot stand on a line. It does not allocate beyond dst.
func (n *NarInfo) AppendText(dst []byte) ([]byte, error) {
	if err := n.Valid(); err != nil {
		return dst, err
	}
	dst = append(dst, "StorePath: "...)
	dst = n.StorePath.append(dst)
	dst = appendLine(dst, "\nURL: ", n.URL)
	if n.Compression != "" {
		dst = appendLine(dst, "\nCompression: ", n.Compression)
	}
	if !n.FileHash.IsZero() {
		dst = append(dst, "\nFileHash: "...)
		dst = n.FileHash.appendNix32(dst)
	}
	if n.FileSize != 0 {
		dst = append(dst, "\nFileSize: "...)
		dst = strconv.AppendInt(dst, n.FileSize, 10)
	}
	dst = append(dst, "\nNarHash: "...)
	dst = n.NarHash.appendNix32(dst)
	dst = append(dst, "\nNarSize: "...)
	dst = strconv.AppendInt(dst, n.NarSize, 10)
	// The space after the colon must be there even if nothing follows: Nix skips
	// two characters without looking at them.
	dst = append(dst, "\nReferences: "...)
	for i, ref := range n.References {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = append(dst, ref.base...)
	}
	if n.Deriver != "" {
		dst = appendLine(dst, "\nDeriver: ", n.Deriver)
	}
	if n.System != "" {
		dst = appendLine(dst, "\nSystem: ", n.System)
	}
	for _, sig := range n.Sig {
		dst = append(dst, "\nSig: "...)
		dst = sig.append(dst)
	}
	if n.CA != "" {
		dst = appendLine(dst, "\nCA: ", n.CA)
	}
	for _, f := range n.Extra {
		dst = append(dst, '\n')
		dst = append(dst, f.Key...)
		dst = appendLine(dst, ": ", f.Value)
	}
	return append(dst, '\n'), nil
}

func appendLine(dst []byte, key, value string) []byte {
	dst = append(dst, key...)
	return append(dst, value...)
}

// Valid reports the first field that keeps n from being printed.
func (n *NarInfo) Valid() error {
	if key, err := n.incomplete(); err != nil {
		return &SyntaxError{Key: key, Err: err}
	}
	words := [...]Field{
		{"URL", n.URL},
		{"Compression", n.Compression},
		{"Deriver", n.Deriver},
		{"System", n.System},
		{"CA", n.CA},
	}
	for _, w := range words {
		if err := checkWord(w.Value); err != nil {
			return &SyntaxError{Key: w.Key, Err: err}
		}
	}
	if n.FileSize < 0 {
		return &SyntaxError{Key: "FileSize", Err: errNumber}
	}
	for _, ref := range n.References {
		if ref.dir != n.StorePath.dir || ref.base == "" {
			return &SyntaxError{Key: "References", Err: fmt.Errorf("%q is not in store dir %s", ref.String(), n.StorePath.dir)}
		}
	}
	for _, sig := range n.Sig {
		if sig.IsZero() {
			return &SyntaxError{Key: "Sig", Err: errMissing}
		}
	}
	for _, f := range n.Extra {
		_, known := lookupNarInfoKey(f.Key)
		switch {
		case f.Key == "" || known || f.Key == "Sig" || strings.Contains(f.Key, ":"):
			return &SyntaxError{Key: clip(f.Key), Err: errors.New("not a key for an extra field")}
		case strings.IndexFunc(f.Key, isControl) >= 0, strings.IndexFunc(f.Value, isControl) >= 0:
			return &SyntaxError{Key: clip(f.Key), Err: errControl}
		}
	}
	return nil
}

// String is the text of AppendText, or of its error.
func (n *NarInfo) String() string {
	b, err := n.AppendText(nil)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
