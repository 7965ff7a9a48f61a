package chunkstore

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// samples are plain stretches of several kinds.
func samples() map[string][]byte {
	noise := make([]byte, 300_000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	words := make([]byte, 0, 700_000)
	for i := 0; len(words) < 600_000; i++ {
		at := int(noise[i%len(noise)]) * 3
		words = append(words, noise[at:at+3+int(noise[(i+7)%len(noise)])%40]...)
	}
	return map[string][]byte{"noise": noise, "words": words[:512<<10], "short": words[:5000], "zeros": make([]byte, 100_000), "one": {1}}
}

// TestGoldenEncoders fails when the library gives other bytes for the same
// settings. Recipes in buckets rely on these: see servedEncoder for what to do.
// Never replace the hashes.
func TestGoldenEncoders(t *testing.T) {
	want := map[uint8]map[string]string{
		1: {"noise": "173fed51f4e5", "words": "5637a7054bdd", "short": "86eb65a2a6f9", "zeros": "4b9072207893", "one": "9f3d8d4bdef6"},
		2: {"noise": "94cf9866d57f", "words": "3eba97469f5c", "short": "1808472d8f0c", "zeros": "46738bded73a", "one": "9f3d8d4bdef6"},
	}
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for version, hashes := range want {
		for name, plain := range samples() {
			out := c.served[version].EncodeAll(plain, nil)
			sum := sha256.Sum256(out)
			if got := hex.EncodeToString(sum[:6]); got != hashes[name] {
				t.Errorf("encoder %d turns %s into %d bytes with hash %s, want %s", version, name, len(out), got, hashes[name])
			}
		}
	}
}

// TestEncodersForget checks that what an encoder did before, and what others do
// at the same time, does not show in its output.
func TestEncodersForget(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	all := samples()
	for version := range c.served {
		if c.served[version] == nil {
			continue
		}
		enc, _ := servedEncoders(uint8(version))
		var wg sync.WaitGroup
		for name, plain := range all {
			fresh, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(enc.level), zstd.WithEncoderConcurrency(1),
				zstd.WithEncoderCRC(false), zstd.WithWindowSize(frameWindow), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
			if err != nil {
				t.Fatal(err)
			}
			want := fresh.EncodeAll(plain, nil)
			wg.Go(func() {
				for range 8 {
					for _, other := range all {
						c.served[version].EncodeAll(other[:len(other)*2/3], nil)
					}
					if got := c.served[version].EncodeAll(plain, nil); string(got) != string(want) {
						t.Errorf("encoder %d, %s: %d bytes after other work, %d fresh", version, name, len(got), len(want))
					}
				}
			})
		}
		wg.Wait()
	}
}
