package nix

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// ContentAddress is what the CA field of a narinfo says: how a path that is not the
// output of a build got its name from its content.
type ContentAddress struct {
	Method string // "text", or how a fixed output was hashed: "" (a flat file), "r:" (its NAR) or "git:"
	Hash   Hash
}

const textMethod = "text"

// ParseContentAddress reads "text:sha256:…", "fixed:sha256:…", "fixed:r:sha256:…" or
// "fixed:git:sha1:…", with the sum in any spelling.
func ParseContentAddress(s string) (ContentAddress, error) {
	var ca ContentAddress
	prefix, rest, _ := strings.Cut(s, ":")
	switch prefix {
	case textMethod:
		ca.Method = textMethod
	case "fixed":
		for _, method := range []string{"r:", "git:"} {
			if after, ok := strings.CutPrefix(rest, method); ok {
				ca.Method, rest = method, after
				break
			}
		}
	default:
		return ca, fmt.Errorf("content address %s: expected text:… or fixed:…", quote(s))
	}
	var err error
	if ca.Hash, err = ParseHash(rest); err != nil {
		return ca, fmt.Errorf("content address %s: %w", quote(s), err)
	}
	if ca.Method == textMethod && ca.Hash.Algo != SHA256 {
		return ca, fmt.Errorf("content address %s: expected a sha256 hash of a text", quote(s))
	}
	return ca, nil
}

// Check reports whether path is the one that this content address and these references
// give. Nix takes a path with another name for a mistake of its own, and aborts.
func (ca ContentAddress) Check(path StorePath, references []StorePath) error {
	base := ca.base(path, references)
	if base != path.Base() {
		return fmt.Errorf("store path %s has not the name that its content address gives, which is %s", path, base)
	}
	return nil
}

// base returns the base name that path should have.
func (ca ContentAddress) base(path StorePath, references []StorePath) string {
	kind, hash := "output:out", ca.Hash
	switch {
	case ca.Method == textMethod:
		kind = withReferences("text", path, references)
	case ca.Method == "r:" && ca.Hash.Algo == SHA256:
		kind = withReferences("source", path, references)
	default:
		inner := "fixed:out:" + ca.Method + ca.Hash.Algo.String() + ":" + hex.EncodeToString(ca.Hash.Sum()) + ":"
		hash = SHA256Hash(sha256.Sum256([]byte(inner)))
	}
	whole := kind + ":" + hash.Algo.String() + ":" + hex.EncodeToString(hash.Sum()) + ":" + string(path.Dir()) + ":" + path.Name()
	sum := sha256.Sum256([]byte(whole))
	var folded [20]byte
	for i, b := range sum {
		folded[i%len(folded)] ^= b
	}
	return string(AppendNix32(nil, folded[:])) + "-" + path.Name()
}

// withReferences spells the references out, with "self" for the path's own.
func withReferences(kind string, path StorePath, references []StorePath) string {
	sorted := slices.Clone(references)
	slices.SortFunc(sorted, StorePath.Compare)
	self := false
	for _, ref := range slices.Compact(sorted) {
		if ref == path {
			self = true
			continue
		}
		kind += ":" + ref.String()
	}
	if self {
		kind += ":self"
	}
	return kind
}
