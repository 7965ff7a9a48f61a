package nix

import (
	"crypto/sha256"
	"strings"
	"testing"
)

// The sums of "abc", in all spellings that nix hash prints.
var abcHashes = []struct{ algo, hex, nix32, base64 string }{
	{"md5", "900150983cd24fb0d6963f7d28e17f72", "3jgzhjhz9zjvbb0kyj7jc500ch", "kAFQmDzST7DWlj99KOF/cg=="},
	{"sha1", "a9993e364706816aba3e25717850c26c9cd0d89d", "kpcd173cq987hw957sx6m0868wv3x6d9", "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="},
	{"sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="},
	{"sha512", "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f", "2gs8k559z4rlahfx0y688s49m2vvszylcikrfinm30ly9rak69236nkam5ydvly1ai7xac99vxfc4ii84hawjbk876blyk1jfhkbbyx", "3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="},
}

func TestParseHash(t *testing.T) {
	for _, v := range abcHashes {
		want, err := ParseHash(v.algo + ":" + v.hex)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range []string{
			v.algo + ":" + strings.ToUpper(v.hex),
			v.algo + ":" + v.nix32,
			v.algo + ":" + v.base64,
			v.algo + "-" + v.base64,
			v.algo + "-" + strings.TrimRight(v.base64, "="),
		} {
			if got, err := ParseHash(in); err != nil || got != want {
				t.Errorf("%q: got %v, %v, expected %v", in, got, err, want)
			}
		}
		algo, _ := ParseHashAlgo(v.algo)
		for _, in := range []string{v.hex, v.nix32, v.base64, v.algo + ":" + v.hex} {
			if got, err := ParseHashAs(algo, in); err != nil || got != want {
				t.Errorf("%v %q: got %v, %v, expected %v", algo, in, got, err, want)
			}
		}
		for _, got := range [][2]string{
			{want.Hex(), v.algo + ":" + v.hex},
			{want.Nix32(), v.algo + ":" + v.nix32},
			{want.String(), v.algo + ":" + v.nix32},
			{want.Base64(), v.algo + ":" + v.base64},
			{want.SRI(), v.algo + "-" + v.base64},
		} {
			if got[0] != got[1] {
				t.Errorf("got %s, expected %s", got[0], got[1])
			}
		}
		if h, err := NewHash(algo, want.Sum()); err != nil || h != want {
			t.Errorf("from its sum: %v, %v", h, err)
		}
	}
}

func TestParseHashRefuses(t *testing.T) {
	sha := abcHashes[2]
	for _, in := range []string{
		"", "sha256", "sha256:", "sha256-", ":" + sha.hex, sha.hex,
		"SHA256:" + sha.hex, "sha3:" + sha.hex, "sha256:" + sha.hex[1:], "sha256:" + sha.hex + "0",
		"sha256:" + "g" + sha.hex[1:], "sha256:" + "e" + sha.nix32[1:], "sha256:z" + sha.nix32[1:],
		"sha256:" + sha.base64[:43] + "A", "sha256-" + sha.hex, "sha256-" + sha.nix32,
		"sha256-" + sha.base64[:42] + "1=", // stray bits
		"sha256-" + sha.base64[:20] + "\n" + sha.base64[21:], "sha256-" + sha.base64 + "=",
		"sha256-" + sha.base64[:20] + "=" + sha.base64[21:], "sha256:" + sha.hex + "\n",
		"sha512:" + sha.hex, "sha1:" + sha.nix32,
	} {
		if h, err := ParseHash(in); err == nil {
			t.Errorf("%q: accepted as %v", in, h)
		}
	}
	if h, err := ParseHashAs(SHA512, "sha256:"+sha.hex); err == nil {
		t.Errorf("sha256 accepted as sha512: %v", h)
	}
	if h, err := NewHash(SHA256, make([]byte, 31)); err == nil {
		t.Errorf("31 bytes accepted: %v", h)
	}
	if h, err := NewHash(0, nil); err == nil {
		t.Errorf("no algorithm accepted: %v", h)
	}
}

func TestHashZero(t *testing.T) {
	var h Hash
	if !h.IsZero() || h.String() != "" || h.SRI() != "" || len(h.Sum()) != 0 {
		t.Errorf("zero hash prints as %q, %q", h, h.SRI())
	}
	if _, is := h.Sum256(); is {
		t.Error("the zero hash claims to be SHA-256")
	}
	sum := sha256.Sum256([]byte("abc"))
	if got, is := SHA256Hash(sum).Sum256(); !is || got != sum {
		t.Errorf("got %x, %v", got, is)
	}
}
