package chunk_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"testing"

	"github.com/celler/celler/blob/chunk"
)

func TestSHAState(t *testing.T) {
	data := make([]byte, 300)
	for i := range data {
		data[i] = byte(i * 7)
	}
	for _, n := range []int{0, 1, 55, 56, 63, 64, 65, 127, 128, 200, 300} {
		h := sha256.New()
		h.Write(data[:n])
		s, err := chunk.SHAStateOf(h)
		if err != nil {
			t.Fatal(err)
		}
		if s.Length() != int64(n) || s.Sum() != sha256.Sum256(data[:n]) {
			t.Fatalf("after %d bytes: length %d, hash %x", n, s.Length(), s.Sum())
		}
		enc := s.Append(nil)
		back, rest, err := chunk.DecodeSHAState(append(bytes.Clone(enc), "rest"...))
		if err != nil || string(rest) != "rest" || back != s {
			t.Fatalf("after %d bytes: decoded %+v, %q, %v", n, back, rest, err)
		}
		if len(enc) > chunk.MaxSHAStateBytes {
			t.Fatalf("%d bytes", len(enc))
		}
		on := back.Hash()
		on.Write(data[n:])
		if got := on.Sum(nil); !bytes.Equal(got, sum(data)) {
			t.Fatalf("resumed after %d bytes: %x", n, got)
		}
		again, err := chunk.SHAStateOf(back.Hash())
		if err != nil || again != s {
			t.Fatalf("after %d bytes: %+v, %v, want %+v", n, again, err, s)
		}
	}
	if (chunk.SHAState{}) != mustState(t, nil) {
		t.Error("the beginning is not the zero value")
	}
	if _, err := chunk.SHAStateOf(sha512.New()); err == nil {
		t.Error("SHA-512 is taken for SHA-256")
	}
	if _, err := chunk.SHAStateOf(sha256.New224()); err == nil {
		t.Error("SHA-224 is taken for SHA-256")
	}
}

func sum(p []byte) []byte {
	s := sha256.Sum256(p)
	return s[:]
}

func mustState(t *testing.T, p []byte) chunk.SHAState {
	t.Helper()
	h := sha256.New()
	h.Write(p)
	s, err := chunk.SHAStateOf(h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSHAStateGolden(t *testing.T) {
	s := mustState(t, []byte("abc"))
	const want = "016a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd1903616263"
	if got := hex.EncodeToString(s.Append(nil)); got != want {
		t.Errorf("state after abc is %s, want %s", got, want)
	}
	s = mustState(t, bytes.Repeat([]byte("a"), 65))
	if got := hex.EncodeToString(s.Append(nil)); got[len(got)-4:] != "4161" {
		t.Errorf("state after 65 a is %s, want length 65 and one a at the end", got)
	}
}

func FuzzSHAState(f *testing.F) {
	f.Add([]byte{0})
	h := sha256.New()
	h.Write([]byte("abc"))
	s, _ := chunk.SHAStateOf(h)
	f.Add(s.Append(nil))
	f.Fuzz(func(t *testing.T, src []byte) {
		s, rest, err := chunk.DecodeSHAState(src)
		if err != nil {
			return
		}
		if got := s.Append(nil); !bytes.Equal(got, src[:len(src)-len(rest)]) {
			t.Fatalf("%x decodes and is then %x", src, got)
		}
		if again, err := chunk.SHAStateOf(s.Hash()); err != nil || again != s {
			t.Fatalf("%+v becomes %+v, %v", s, again, err)
		}
	})
}
