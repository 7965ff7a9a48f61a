package wire

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/celler/celler/nix"
)

const (
	// DeltaQueryPaths is the most paths of a question about closures: a little more than a
	// megabyte.
	DeltaQueryPaths = 65536
	// HashPartBytes is the length of a hash part in such a question.
	HashPartBytes = len(nix.HashPart{})
	// AbsentSumBytes is the length of an AbsentSum.
	AbsentSumBytes = 16
)

// PathsResult is the answer to POST delta/{cache}/paths.
type PathsResult struct {
	Missing Bitmap   `json:"missing"`           // over the paths of the question
	Closure *Closure `json:"closure,omitempty"` // nil: it is too large to be looked at
}

// Closure is what there is of the closures of those that are not missing.
type Closure struct {
	Paths     int    `json:"paths"`                // that are there, those of the question among them
	Absent    int    `json:"absent"`               // that those refer to, and are not there
	AbsentSum []byte `json:"absent_sum,omitempty"` // AbsentSum of them; not set if there are none
}

// AbsentSum stands for a set of hash parts, which it sorts: the first 16 bytes of the SHA-256
// of one after another.
func AbsentSum(hashParts []nix.HashPart) []byte {
	slices.SortFunc(hashParts, func(a, b nix.HashPart) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for i := range hashParts {
		h.Write(hashParts[i][:])
	}
	return h.Sum(nil)[:AbsentSumBytes]
}

// AppendHashParts appends the body of a question about closures.
func AppendHashParts(dst []byte, hashParts []nix.HashPart) []byte {
	for i := range hashParts {
		dst = append(dst, hashParts[i][:]...)
	}
	return dst
}

// ReadHashParts reads the body of a question about at most limit paths. With more the error
// is one of IsTooLong.
func ReadHashParts(r io.Reader, limit int) ([]nix.HashPart, error) {
	const step = 512
	var hashParts []nix.HashPart
	buf := make([]byte, step*HashPartBytes)
	for {
		n, err := readUp(r, buf)
		if n%HashPartBytes != 0 && errors.Is(err, io.EOF) {
			return nil, &QueryError{fmt.Errorf("%d bytes after its last path, want %d for each", n%HashPartBytes, HashPartBytes)}
		}
		for b := buf[:n-n%HashPartBytes]; len(b) > 0; b = b[HashPartBytes:] {
			if len(hashParts) == limit {
				return nil, &QueryError{fmt.Errorf("%w: want at most %d paths", errTooMany, limit)}
			}
			hashParts = append(hashParts, nix.HashPart(b[:HashPartBytes]))
		}
		switch {
		case err == io.EOF: //nolint:errorlint // only the bare one is the end
			return hashParts, nil
		case err != nil:
			return nil, err
		}
	}
}
