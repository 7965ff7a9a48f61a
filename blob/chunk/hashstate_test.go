package chunk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"pgregory.net/rapid"

	"github.com/celler/celler/blob/chunk"
)

// TestHashStateProperties cuts a stream anywhere and goes on elsewhere, from what was
// sent there.
func TestHashStateProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "stream")
		at := rapid.IntRange(0, len(p)).Draw(t, "at")
		h := sha256.New()
		h.Write(p[:at])
		s, err := chunk.HashStateOf(h)
		if err != nil {
			t.Fatal(err)
		}
		got, rest, err := chunk.DecodeHashState(append(s.Append(nil), "rest"...))
		if err != nil || string(rest) != "rest" || got != s || got.Length() != int64(at) {
			t.Fatalf("decoded %v at %d, rest %q: %v; want %v at %d", got, got.Length(), rest, err, s, at)
		}
		h, err = got.Resume()
		if err != nil {
			t.Fatal(err)
		}
		h.Write(p[at:])
		if sum := [32]byte(h.Sum(nil)); sum != sha256.Sum256(p) {
			t.Fatalf("cut at %d of %d: SHA-256 is %x", at, len(p), sum)
		}
	})
}

func TestHashStateIsFrozen(t *testing.T) {
	h := sha256.New()
	h.Write(bytes.Repeat([]byte("x"), 66))
	s, err := chunk.HashStateOf(h)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(s.Append(nil)), "018b32cd46d0772d44e4158e19ed1472e235a42a1836eccee0e292295b85adffde00000000000000427878"; got != want {
		t.Errorf("state is %s, want %s", got, want)
	}
	if got := (&chunk.HashState{}).Append(nil); !bytes.Equal(got, []byte{0}) {
		t.Errorf("the beginning is %x, want 00", got)
	}
}

func FuzzDecodeHashState(f *testing.F) {
	h := sha256.New()
	h.Write(bytes.Repeat([]byte("x"), 66))
	s, err := chunk.HashStateOf(h)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Append(nil))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, src []byte) {
		s, rest, err := chunk.DecodeHashState(src)
		if err != nil {
			return
		}
		if again := s.Append(nil); !bytes.Equal(again, src[:len(src)-len(rest)]) {
			t.Fatalf("%x is decoded, but would be written as %x", src[:len(src)-len(rest)], again)
		}
		if _, err := s.Resume(); err != nil {
			t.Fatalf("resume: %v", err)
		}
	})
}
