package nix

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func FuzzParseStorePath(f *testing.F) {
	for _, s := range []string{"/nix/store/" + helloHash + "-hello", "/s/" + helloHash + "-.x", "/nix/store/x", "", "/" + helloHash + "-x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseStorePath(s)
		if err != nil {
			if !p.IsZero() {
				t.Errorf("%q: error %v and path %v", s, err, p)
			}
			return
		}
		if p.String() != s {
			t.Errorf("%q prints as %q", s, p)
		}
		if h := p.HashPart().String(); !strings.HasPrefix(p.Base(), h+"-") {
			t.Errorf("%q has hash part %v", s, h)
		}
		if q, err := ParseStorePathBase(p.Dir(), p.Base()); err != nil || q != p {
			t.Errorf("%q from its base name: %v, %v", s, q, err)
		}
		if strings.ContainsAny(p.Base(), "/\x00\n ") || p.Name() == "" {
			t.Errorf("%q has base name %q", s, p.Base())
		}
	})
}

func FuzzParseHash(f *testing.F) {
	for _, v := range abcHashes {
		f.Add(v.algo + ":" + v.hex)
		f.Add(v.algo + ":" + v.nix32)
		f.Add(v.algo + "-" + v.base64)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHash(s)
		if err != nil {
			return
		}
		for _, text := range []string{h.Hex(), h.Nix32(), h.Base64(), h.SRI()} {
			if again, err := ParseHash(text); err != nil || again != h {
				t.Errorf("%q: printed as %q, which reads as %v, %v", s, text, again, err)
			}
		}
		bare := strings.TrimPrefix(h.Nix32(), h.Algo.String()+":")
		if again, err := ParseHashAs(h.Algo, bare); err != nil || again != h {
			t.Errorf("%q: bare %q reads as %v, %v", s, bare, again, err)
		}
		// Apart from case and padding there is one text for each spelling.
		low := strings.ToLower(s)
		if low != h.Hex() && s != h.Nix32() && s != h.Base64() && s != h.SRI() && s != strings.TrimRight(h.SRI(), "=") {
			t.Errorf("%q is accepted as %v but is none of its spellings", s, h)
		}
	})
}

func FuzzParseNarInfo(f *testing.F) {
	f.Add([]byte(realNarInfo))
	f.Add([]byte(shortNarInfo))
	f.Add([]byte(shortNarInfo + "References: \nSig: a:b\nX: y\nCA: text:sha256:x\nSystem: s\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := ParseNarInfo(text)
		if err != nil {
			return
		}
		out, err := n.AppendText(nil)
		if err != nil {
			t.Fatalf("%q: cannot be printed: %v", text, err)
		}
		again, err := ParseNarInfo(out)
		if err != nil || !cmp.Equal(n, again, cmpopts.EquateComparable(StorePath{}, Hash{}, Signature{}), cmpopts.EquateEmpty()) {
			t.Fatalf("%q: printed as %q, which reads as %v, %v", text, out, again, err)
		}
		if fp, err := n.Fingerprint(); err == nil && strings.ContainsAny(fp, "\n") {
			t.Fatalf("%q: fingerprint %q", text, fp)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add(cacheNixosOrg)
	f.Add("a:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQGKiOPddAnxlf1S2y08ul1yymcJvx2UEhvzdIgB0IjwXA==")
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParsePublicKey(s); err == nil && k.String() != s {
			t.Errorf("%q prints as %q", s, k)
		}
		if k, err := ParseSecretKey(s); err == nil && (k.Secret() != s || !k.Public().Verify("x", k.Sign("x"))) {
			t.Errorf("%q prints as %q", s, k.Secret())
		}
		if sig, err := ParseSignature(s); err == nil && sig.String() != s {
			t.Errorf("%q prints as %q", s, sig)
		}
	})
}

func FuzzParseCacheInfo(f *testing.F) {
	f.Add([]byte("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\nX: y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseCacheInfo(text)
		if err != nil {
			return
		}
		out, err := c.AppendText(nil)
		if err != nil {
			return // an extra field may hold a stray carriage return
		}
		again, err := ParseCacheInfo(out)
		if err != nil || again.StoreDir != c.StoreDir || again.Priority != c.Priority || again.WantMassQuery != c.WantMassQuery {
			t.Errorf("%q: printed as %q, which reads as %v, %v", text, out, again, err)
		}
	})
}

func FuzzNix32(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("abc"))
	f.Add(bytes.Repeat([]byte{0xff}, 32))
	f.Fuzz(func(t *testing.T, b []byte) {
		text := string(AppendNix32(nil, b))
		got := make([]byte, len(b))
		if err := decodeNix32(got, text); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%x: printed as %q, which reads as %x, %v", b, text, got, err)
		}
	})
}

func FuzzParseContentAddress(f *testing.F) {
	f.Add("fixed:r:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s")
	f.Add("fixed:git:sha1:0000000000000000000000000000000000000000")
	f.Add("text:sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
	f.Fuzz(func(t *testing.T, s string) {
		ca, err := ParseContentAddress(s)
		if err == nil && (ca.Hash.IsZero() || len(s) > 200) {
			t.Errorf("%q: %+v", s, ca)
		}
	})
}
