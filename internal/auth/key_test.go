package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestKeys(t *testing.T) {
	b64 := func(name string) string { return base64.StdEncoding.EncodeToString(mustRead(t, name)) }
	signer := mustRS256(t)
	token, err := signer.Mint(Claims{Rules: []Rule{{"c", Permission{Pull: true}}}})
	if err != nil {
		t.Fatal(err)
	}
	ok := func(name string, k Key, err error, canSign bool) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		if g := New(k, Options{}).Verify(token, testNow); g.Anonymous() {
			t.Errorf("%s: does not verify: %v", name, g.Rejected)
		}
		if k.CanSign() != canSign {
			t.Errorf("%s: can sign is %v, want %v", name, k.CanSign(), canSign)
		}
		if _, err := k.Mint(Claims{}); canSign != (err == nil) || !canSign && !errors.Is(err, ErrVerifyOnly) {
			t.Errorf("%s: mint gave %v", name, err)
		}
	}
	bad := func(name string, err error, why string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: error is %v, want %q in it", name, err, why)
		}
	}
	k, err := ParseRS256SecretBase64(b64("testdata/rsa2048.pkcs1.pem"))
	ok("PKCS#1", k, err, true)
	k, err = ParseRS256SecretBase64(b64("testdata/rsa2048.pkcs8.pem") + "\n")
	ok("PKCS#8, with a newline", k, err, true)
	k, err = ParseRS256PublicBase64(b64("testdata/rsa2048.spki.pem"))
	ok("SPKI", k, err, false)
	k, err = ParseRS256PublicBase64(strings.TrimRight(b64("testdata/rsa2048.rsapub.pem"), "="))
	ok("PKCS#1 public, unpadded", k, err, false)

	_, err = ParseRS256SecretBase64(b64("testdata/rsa1024.pkcs1.pem"))
	bad("1024 bits", err, "2048")
	_, err = ParseRS256SecretBase64(b64("testdata/ec256.pkcs8.pem"))
	bad("an EC key", err, "RSA")
	_, err = ParseRS256SecretBase64(b64("testdata/rsa2048.spki.pem"))
	bad("a public key as secret", err, "PKCS")
	_, err = ParseRS256PublicBase64(b64("testdata/rsa2048.pkcs1.pem"))
	bad("a secret as public key", err, "SPKI")
	_, err = ParseRS256SecretBase64("bm90IHBlbQ==")
	bad("not PEM", err, "PEM")
	_, err = ParseRS256SecretBase64("!")
	bad("not base64", err, "base64")
	_, err = ParseHS256Base64(" \n")
	bad("an empty secret", err, "empty")
	_, err = ParseHS256Base64("/v8=\n")
	bad0(t, err)

	secret := mustHS256(t, []byte("do not print me"))
	for _, text := range []string{fmt.Sprint(secret), fmt.Sprintf("%+v", secret), fmt.Sprintf("%#v", secret), fmt.Sprintf("%v", &secret)} {
		if strings.Contains(text, "do not") || strings.Contains(text, "100 111") {
			t.Errorf("a key prints its secret: %s", text)
		}
	}
}

func bad0(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("unexpected error: %v", err)
	}
}
