package nix

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	// maxKeyNameLen bounds the name of a key. Nix has no limit; names are host
	// names with a number in practice.
	maxKeyNameLen = 255
	// maxSignatureLen bounds the text of one signature. Ed25519 needs 88
	// characters; the post-quantum signatures some Nix builds write need 6200.
	maxSignatureLen = 16 << 10
)

// ParseKeyName accepts what may stand before the colon of a key or signature.
func ParseKeyName(s string) (string, error) {
	if s == "" {
		return "", errors.New("key name is empty")
	}
	if len(s) > maxKeyNameLen {
		return "", fmt.Errorf("key name %s: longer than %d bytes", quote(s), maxKeyNameLen)
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == ':' {
			return "", fmt.Errorf("key name %s: character %q is not allowed", quote(s), c)
		}
	}
	return s, nil
}

// A SecretKey signs fingerprints. It prints itself without the secret; only
// [SecretKey.Secret] reveals it.
type SecretKey struct {
	name string
	key  [ed25519.PrivateKeySize]byte // seed, then public key
}

// GenerateSecretKey makes a new key of the given name from 32 bytes of rand.
func GenerateSecretKey(name string, rand io.Reader) (SecretKey, error) {
	if _, err := ParseKeyName(name); err != nil {
		return SecretKey{}, fmt.Errorf("generate key: %w", err)
	}
	var seed [ed25519.SeedSize]byte
	if _, err := io.ReadFull(rand, seed[:]); err != nil {
		return SecretKey{}, fmt.Errorf("generate key %s: read random bytes: %w", name, err)
	}
	return newSecretKey(name, seed[:]), nil
}

func newSecretKey(name string, seed []byte) SecretKey {
	k := SecretKey{name: name}
	copy(k.key[:], ed25519.NewKeyFromSeed(seed))
	return k
}

// ParseSecretKey reads "name:base64", as nix-store --generate-binary-cache-key
// writes it. A key whose public half does not belong to its seed is refused:
// signing with such a key would give the seed away.
func ParseSecretKey(s string) (SecretKey, error) {
	name, raw, err := parseKey(s, ed25519.PrivateKeySize)
	if err != nil {
		return SecretKey{}, fmt.Errorf("secret key: %w", err) // never quote s
	}
	k := newSecretKey(name, raw[:ed25519.SeedSize])
	if !bytes.Equal(k.key[:], raw) {
		return SecretKey{}, fmt.Errorf("secret key %s: its public half does not belong to its seed", name)
	}
	return k, nil
}

// Name is the name that its signatures carry.
func (k SecretKey) Name() string { return k.name }

// IsZero reports whether k is the zero value, which cannot sign.
func (k SecretKey) IsZero() bool { return k.name == "" }

// Public is the key that verifies what k signs.
func (k SecretKey) Public() PublicKey {
	p := PublicKey{name: k.name}
	copy(p.key[:], k.key[ed25519.SeedSize:])
	return p
}

// Sign signs a fingerprint; see [NarInfo.Fingerprint]. The zero key gives the
// zero Signature.
func (k SecretKey) Sign(fingerprint string) Signature {
	if k.IsZero() {
		return Signature{}
	}
	sig := ed25519.Sign(k.key[:], []byte(fingerprint))
	return Signature{name: k.name, data: base64.StdEncoding.EncodeToString(sig)}
}

// Secret is the "name:base64" text with the secret in it.
func (k SecretKey) Secret() string {
	if k.IsZero() {
		return ""
	}
	return k.name + ":" + base64.StdEncoding.EncodeToString(k.key[:])
}

// String names the key and hides the secret.
func (k SecretKey) String() string { return k.name + ":[secret]" }

// GoString is String, so that %#v does not reveal the secret either.
func (k SecretKey) GoString() string { return k.String() }

// LogValue is String.
func (k SecretKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// A PublicKey verifies signatures of the secret key of the same name.
type PublicKey struct {
	name string
	key  [ed25519.PublicKeySize]byte
}

// ParsePublicKey reads "name:base64", as in trusted-public-keys.
func ParsePublicKey(s string) (PublicKey, error) {
	name, raw, err := parseKey(s, ed25519.PublicKeySize)
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key %s: %w", quote(s), err)
	}
	k := PublicKey{name: name}
	copy(k.key[:], raw)
	return k, nil
}

func parseKey(s string, size int) (name string, raw []byte, err error) {
	name, data, found := strings.Cut(s, ":")
	if !found {
		return "", nil, errors.New(`expected "<name>:<base64>"`)
	}
	if _, err := ParseKeyName(name); err != nil {
		return "", nil, err
	}
	raw = make([]byte, size)
	if err := decodeBase64Key(raw, data); err != nil {
		return "", nil, err
	}
	return name, raw, nil
}

func decodeBase64Key(dst []byte, s string) error {
	if want := base64.StdEncoding.EncodedLen(len(dst)); len(s) != want {
		return fmt.Errorf("expected %d characters of base64 after the name, found %d", want, len(s))
	}
	if strings.ContainsAny(s, "\r\n") {
		return errors.New("line break in base64")
	}
	buf, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return fmt.Errorf("decode base64: %w", err)
	}
	if len(buf) != len(dst) {
		return fmt.Errorf("expected %d bytes of key, found %d", len(dst), len(buf))
	}
	copy(dst, buf)
	return nil
}

// Name is the name of the key.
func (k PublicKey) Name() string { return k.name }

// IsZero reports whether k is the zero value, which verifies nothing.
func (k PublicKey) IsZero() bool { return k.name == "" }

// Verify reports whether sig is this key's signature of the fingerprint: the
// name must match and the bytes must be right.
func (k PublicKey) Verify(fingerprint string, sig Signature) bool {
	if k.IsZero() || sig.name != k.name {
		return false
	}
	var raw [ed25519.SignatureSize]byte
	if decodeBase64Key(raw[:], sig.data) != nil {
		return false
	}
	return ed25519.Verify(k.key[:], []byte(fingerprint), raw[:])
}

func (k PublicKey) String() string {
	if k.IsZero() {
		return ""
	}
	return k.name + ":" + base64.StdEncoding.EncodeToString(k.key[:])
}

// AppendText appends "name:base64". It never fails.
func (k PublicKey) AppendText(dst []byte) ([]byte, error) { return append(dst, k.String()...), nil }

// VerifyAny reports whether any of the signatures is a right one by any of the
// keys. A wrong signature does not hide a right one of the same name.
func VerifyAny(keys []PublicKey, fingerprint string, sigs []Signature) bool {
	for _, k := range keys {
		for _, sig := range sigs {
			if k.Verify(fingerprint, sig) {
				return true
			}
		}
	}
	return false
}

// A Signature is "<key name>:<data>". The data is base64 of an Ed25519
// signature, or of something longer that newer Nix builds write and that we
// keep without understanding it.
type Signature struct {
	name, data string
}

// ParseSignature splits a signature. It checks that the text is fit to stand in
// a narinfo, not that it is a signature we could verify.
func ParseSignature(s string) (Signature, error) {
	name, data, found := strings.Cut(s, ":")
	if !found {
		return Signature{}, fmt.Errorf(`signature %s: expected "<key name>:<base64>"`, quote(s))
	}
	if _, err := ParseKeyName(name); err != nil {
		return Signature{}, fmt.Errorf("signature %s: %w", quote(s), err)
	}
	if data == "" {
		return Signature{}, fmt.Errorf("signature %s: nothing after the key name", quote(s))
	}
	if len(s) > maxSignatureLen {
		return Signature{}, fmt.Errorf("signature %s: longer than %d bytes", quote(s), maxSignatureLen)
	}
	for i := range len(data) {
		if c := data[i]; c <= ' ' || c >= 0x7f {
			return Signature{}, fmt.Errorf("signature %s: character %q is not allowed", quote(s), c)
		}
	}
	return Signature{name: name, data: data}, nil
}

// Checkable reports whether Nix can find out if s is right: whether the data is base64
// of as many bytes as a signature has, of Ed25519 or of one of the three kinds of ML-DSA.
// With anything else under the name of a key that it trusts Nix gives up the path,
// whatever other signatures there are.
func (s Signature) Checkable() bool {
	raw, err := base64.StdEncoding.Strict().DecodeString(s.data)
	if err != nil {
		return false
	}
	switch len(raw) {
	case ed25519.SignatureSize, 2420, 3309, 4627:
		return true
	}
	return false
}

// Name is the name of the key that is said to have signed.
func (s Signature) Name() string { return s.name }

// IsZero reports whether s is the zero value, which is no signature.
func (s Signature) IsZero() bool { return s.name == "" }

func (s Signature) String() string {
	if s.IsZero() {
		return ""
	}
	return s.name + ":" + s.data
}

// AppendText appends "name:base64". It never fails.
func (s Signature) AppendText(dst []byte) ([]byte, error) { return s.append(dst), nil }

func (s Signature) append(dst []byte) []byte {
	if s.IsZero() {
		return dst
	}
	dst = append(dst, s.name...)
	dst = append(dst, ':')
	return append(dst, s.data...)
}

// MarshalText is AppendText to a new slice.
func (s Signature) MarshalText() ([]byte, error) { return s.AppendText(nil) }

// UnmarshalText is ParseSignature.
func (s *Signature) UnmarshalText(text []byte) error {
	v, err := ParseSignature(string(text))
	if err != nil {
		return err
	}
	*s = v
	return nil
}
