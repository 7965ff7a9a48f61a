package nix

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

const cacheNixosOrg = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="

func mkKey(t *testing.T, name string, seed byte) SecretKey {
	t.Helper()
	k, err := GenerateSecretKey(name, bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysRoundTrip(t *testing.T) {
	k := mkKey(t, "test-1", 7)
	k2, err := ParseSecretKey(k.Secret())
	if err != nil || k2 != k {
		t.Errorf("secret key: %v, %v", k2, err)
	}
	p, err := ParsePublicKey(k.Public().String())
	if err != nil || p != k.Public() {
		t.Errorf("public key: %v, %v", p, err)
	}
	p, err = ParsePublicKey(cacheNixosOrg)
	if err != nil || p.String() != cacheNixosOrg || p.Name() != "cache.nixos.org-1" {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestSecretKeyHidesItself(t *testing.T) {
	k := mkKey(t, "test-1", 7)
	secret := strings.TrimPrefix(k.Secret(), "test-1:")
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(format, k); strings.Contains(s, secret) || !strings.Contains(s, "test-1") || len(s) > 40 {
			t.Errorf("%s prints %q", format, s)
		}
	}
	_, err := ParseSecretKey("test-1:" + secret[:50])
	if err == nil || strings.Contains(err.Error(), secret[:20]) {
		t.Errorf("error: %v", err)
	}
}

func TestSecretKeyWithForeignPublicHalf(t *testing.T) {
	a, b := mkKey(t, "k", 1), mkKey(t, "k", 2)
	mixed := a
	copy(mixed.key[32:], b.key[32:])
	if _, err := ParseSecretKey(mixed.Secret()); err == nil || !strings.Contains(err.Error(), "public half") {
		t.Errorf("got error %v", err)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	good := strings.TrimPrefix(cacheNixosOrg, "cache.nixos.org-1:")
	for _, in := range []string{
		"", "x", ":" + good, "a b:" + good, "a\n:" + good, "x:", "x:" + good[1:], "x:" + good + good,
		"x:" + good[:20] + "\n" + good[21:], "x:" + good[:43] + "\n", strings.Repeat("n", 256) + ":" + good,
		"x:" + good[:42] + "Z=",
	} {
		if k, err := ParsePublicKey(in); err == nil {
			t.Errorf("%q: accepted as %v", in, k)
		}
		if k, err := ParseSecretKey(in); err == nil {
			t.Errorf("%q: accepted as %v", in, k)
		}
	}
}

func TestVerify(t *testing.T) {
	k, other := mkKey(t, "test-1", 7), mkKey(t, "test-1", 8)
	sig := k.Sign("fingerprint")
	if !k.Public().Verify("fingerprint", sig) {
		t.Error("own signature does not verify")
	}
	if k.Public().Verify("fingerprinT", sig) {
		t.Error("signature of another text verifies")
	}
	if other.Public().Verify("fingerprint", sig) {
		t.Error("signature of another key of the same name verifies")
	}
	renamed, _ := ParseSignature("test-2" + strings.TrimPrefix(sig.String(), "test-1"))
	if k.Public().Verify("fingerprint", renamed) {
		t.Error("signature under another name verifies")
	}
	if (PublicKey{}).Verify("", Signature{}) {
		t.Error("the zero key verifies the zero signature")
	}
	if !(SecretKey{}).Sign("x").IsZero() {
		t.Error("the zero key signs")
	}

	// A wrong signature of the right name must not hide a right one.
	keys := []PublicKey{mkKey(t, "else", 1).Public(), k.Public()}
	if !VerifyAny(keys, "fingerprint", []Signature{other.Sign("fingerprint"), sig}) {
		t.Error("the second signature is not found")
	}
	if VerifyAny(keys, "fingerprint", []Signature{other.Sign("fingerprint")}) || VerifyAny(nil, "fingerprint", []Signature{sig}) {
		t.Error("verified without a right signature or key")
	}
}

func TestParseSignature(t *testing.T) {
	long := "ml-dsa:" + strings.Repeat("A", 6200)
	for _, in := range []string{mkKey(t, "test-1", 7).Sign("x").String(), long, "k:v:w"} {
		s, err := ParseSignature(in)
		if err != nil || s.String() != in {
			t.Errorf("%q: %v, %v", in, s, err)
		}
		if (PublicKey{name: s.Name()}).Verify("x", s) {
			t.Errorf("%q: verified by a key it was not made with", in)
		}
	}
	for _, in := range []string{"", "x", ":", "x:", ":abc", "x:a b", "x:a\nURL: y", "x y:abc", "x:" + strings.Repeat("A", 17<<10)} {
		if s, err := ParseSignature(in); err == nil {
			t.Errorf("%q: accepted as %v", in, s)
		}
	}
}

func TestSignatureCheckable(t *testing.T) {
	of := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for data, want := range map[string]bool{
		of(64): true, of(2420): true, of(3309): true, of(4627): true,
		of(0) + "x": false, of(3): false, of(63): false, of(65): false, of(2421): false,
		of(64)[:86]: false, of(64) + "A": false, strings.Repeat("#", 88): false,
	} {
		sig, err := ParseSignature("k:" + data)
		if err != nil || sig.Checkable() != want {
			t.Errorf("%d characters %.20s: %v, %v", len(data), data, sig.Checkable(), err)
		}
	}
}

func TestGenerateSecretKeyShortRandom(t *testing.T) {
	if _, err := GenerateSecretKey("x", strings.NewReader("too short")); err == nil {
		t.Error("nine random bytes accepted")
	}
	if _, err := GenerateSecretKey("a:b", bytes.NewReader(make([]byte, 32))); err == nil {
		t.Error("name with a colon accepted")
	}
}
