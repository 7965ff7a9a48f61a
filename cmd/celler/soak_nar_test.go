//go:build soak

package main

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// soakNAR makes the NAR of a version. Its blocks are drawn from a few of which most are
// in other versions too, so that chunks are shared, die, and come back.
func soakNAR(t *testing.T, rng *rand.Rand, version string) []byte {
	files := nixtest.Dir{"version": nixtest.Text(version)}
	for i := range 1 + rng.IntN(4) {
		files[fmt.Sprint("part", i)] = nixtest.File{Contents: soakBlock(uint64(rng.IntN(60)))}
	}
	return nixtest.MkNAR(t, files)
}

// soakBlock is some 20 KiB that compress to half.
func soakBlock(seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, 20<<10+rng.IntN(8<<10))
	for i := range b {
		b[i] = "0123456789abcdef"[rng.Uint32()&15]
	}
	return b
}

func checkSoakNAR(body []byte, info *nix.NarInfo) error {
	if int64(len(body)) != info.FileSize {
		return fmt.Errorf("%d bytes, the narinfo says %d", len(body), info.FileSize)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer dec.Close()
	nar, err := dec.DecodeAll(body, nil)
	if err != nil {
		return err
	}
	if got := nix.SHA256Hash(sha256.Sum256(nar)); got != info.NarHash || int64(len(nar)) != info.NarSize {
		return fmt.Errorf("NAR of %d bytes with hash %v, the narinfo says %d and %v", len(nar), got, info.NarSize, info.NarHash)
	}
	return nil
}
