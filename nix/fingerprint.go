package nix

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Fingerprint is the text that signatures sign: references sorted and without
// duplicates whatever their order in n, as full paths.
func (n *NarInfo) Fingerprint() (string, error) {
	b, err := n.AppendFingerprint(make([]byte, 0, 128+len(n.References)*96))
	return string(b), err
}

// AppendFingerprint appends the fingerprint. It fails, appending nothing, if the
// NAR hash is not SHA-256 or another signed field is missing.
func (n *NarInfo) AppendFingerprint(dst []byte) ([]byte, error) {
	switch {
	case n.StorePath.IsZero():
		return dst, errors.New("fingerprint: no store path")
	case n.NarHash.Algo != SHA256:
		return dst, fmt.Errorf("fingerprint of %v: expected a sha256 NarHash, found %v", n.StorePath, n.NarHash.Algo)
	case n.NarSize <= 0:
		return dst, fmt.Errorf("fingerprint of %v: NarSize is %d", n.StorePath, n.NarSize)
	}
	refs := n.References
	for _, ref := range refs {
		if ref.base == "" || ref.dir != n.StorePath.dir {
			return dst, fmt.Errorf("fingerprint of %v: reference %q is not in store dir %s", n.StorePath, ref.String(), n.StorePath.dir)
		}
	}
	if !slices.IsSortedFunc(refs, StorePath.Compare) {
		refs = slices.Clone(refs)
		slices.SortFunc(refs, StorePath.Compare)
	}
	dst = append(dst, "1;"...)
	dst = n.StorePath.append(dst)
	dst = append(dst, ';')
	dst = n.NarHash.appendNix32(dst)
	dst = append(dst, ';')
	dst = strconv.AppendInt(dst, n.NarSize, 10)
	dst = append(dst, ';')
	for i, ref := range refs {
		if i > 0 {
			if ref == refs[i-1] {
				continue
			}
			dst = append(dst, ',')
		}
		dst = ref.append(dst)
	}
	return dst, nil
}
