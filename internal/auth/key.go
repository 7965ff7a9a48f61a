package auth

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Key signs and verifies tokens, or only verifies them. The zero Key verifies
// nothing. A Key never prints its secret.
type Key struct {
	alg    jose.SignatureAlgorithm
	verify any // []byte or *rsa.PublicKey
	sign   any // []byte, *rsa.PrivateKey, or nil if this key can only verify
}

// minRSABits is the least modulus that is accepted; shorter ones can be factored.
const minRSABits = 2048

// hs256SecretBytes is how many random bytes [GenerateHS256] takes: more than the
// hash is wide, so that the secret is never the weakest part.
const hs256SecretBytes = 64

// HS256 makes a key of a shared secret of any length but zero.
func HS256(secret []byte) (Key, error) {
	if len(secret) == 0 {
		return Key{}, errors.New("read HS256 secret: it is empty")
	}
	// go-jose refuses secrets shorter than the hash, Attic takes any. HMAC itself fills a
	// short secret up with zeros, so doing it here changes no signature.
	own := make([]byte, max(len(secret), sha256.Size))
	copy(own, secret)
	return Key{alg: jose.HS256, verify: own, sign: own}, nil
}

// GenerateHS256 makes a fresh secret.
func GenerateHS256(rand io.Reader) ([]byte, error) {
	secret := make([]byte, hs256SecretBytes)
	if _, err := io.ReadFull(rand, secret); err != nil {
		return nil, fmt.Errorf("generate HS256 secret: %w", err)
	}
	return secret, nil
}

// ParseHS256Base64 reads Attic's token-hs256-secret-base64: base64 of arbitrary bytes.
func ParseHS256Base64(text string) (Key, error) {
	secret, err := decodeBase64(text)
	if err != nil {
		return Key{}, fmt.Errorf("read HS256 secret: %w", err)
	}
	return HS256(secret)
}

// ParseRS256SecretBase64 reads Attic's token-rs256-secret-base64: base64 of a PEM
// RSA private key (PKCS#1 or PKCS#8). Such a key signs and verifies.
func ParseRS256SecretBase64(text string) (Key, error) {
	raw, err := decodeBase64(text)
	if err != nil {
		return Key{}, fmt.Errorf("read RS256 secret: %w", err)
	}
	return ParseRS256Secret(raw)
}

// ParseRS256PublicBase64 reads Attic's token-rs256-pubkey-base64: base64 of a PEM RSA
// public key (PKCS#1 or SPKI). Such a key only verifies.
func ParseRS256PublicBase64(text string) (Key, error) {
	raw, err := decodeBase64(text)
	if err != nil {
		return Key{}, fmt.Errorf("read RS256 public key: %w", err)
	}
	return ParseRS256Public(raw)
}

// ParseRS256Secret reads a PEM RSA private key (PKCS#1 or PKCS#8).
func ParseRS256Secret(pemText []byte) (Key, error) {
	block, _ := pem.Decode(pemText)
	if block == nil {
		return Key{}, errors.New("read RS256 secret: no PEM block found")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		any8, err8 := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err8 != nil {
			return Key{}, fmt.Errorf("read RS256 secret: PEM block %s is neither PKCS#1 (%w) nor PKCS#8 (%w)", quote(block.Type), err, err8)
		}
		rsaKey, ok := any8.(*rsa.PrivateKey)
		if !ok {
			return Key{}, fmt.Errorf("read RS256 secret: expected an RSA key, found %T", any8)
		}
		key = rsaKey
	}
	if n := key.N.BitLen(); n < minRSABits {
		return Key{}, fmt.Errorf("read RS256 secret: expected at least %d bits, found %d", minRSABits, n)
	}
	return Key{alg: jose.RS256, verify: &key.PublicKey, sign: key}, nil
}

// ParseRS256Public reads a PEM RSA public key (PKCS#1 or SPKI).
func ParseRS256Public(pemText []byte) (Key, error) {
	block, _ := pem.Decode(pemText)
	if block == nil {
		return Key{}, errors.New("read RS256 public key: no PEM block found")
	}
	key, err := x509.ParsePKCS1PublicKey(block.Bytes)
	if err != nil {
		anyKey, errSPKI := x509.ParsePKIXPublicKey(block.Bytes)
		if errSPKI != nil {
			return Key{}, fmt.Errorf("read RS256 public key: PEM block %s is neither PKCS#1 (%w) nor SPKI (%w)", quote(block.Type), err, errSPKI)
		}
		rsaKey, ok := anyKey.(*rsa.PublicKey)
		if !ok {
			return Key{}, fmt.Errorf("read RS256 public key: expected an RSA key, found %T", anyKey)
		}
		key = rsaKey
	}
	if n := key.N.BitLen(); n < minRSABits {
		return Key{}, fmt.Errorf("read RS256 public key: expected at least %d bits, found %d", minRSABits, n)
	}
	return Key{alg: jose.RS256, verify: key}, nil
}

// Algorithm returns "HS256", "RS256", or "" for the zero Key.
func (k Key) Algorithm() string { return string(k.alg) }

// CanSign reports whether the key can mint tokens.
func (k Key) CanSign() bool { return k.sign != nil }

// String says what kind of key it is, and nothing about its value.
func (k Key) String() string {
	switch {
	case k.alg == "":
		return "no key"
	case k.CanSign():
		return k.Algorithm() + " key"
	default:
		return k.Algorithm() + " public key"
	}
}

// GoString keeps the secret out of %#v too.
func (k Key) GoString() string { return "auth.Key(" + k.String() + ")" }

// decodeBase64 is lenient where people paste: white space anywhere, padding or none.
func decodeBase64(text string) ([]byte, error) {
	compact := strings.Join(strings.Fields(text), "")
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(compact, "="))
	if err != nil {
		return nil, fmt.Errorf("decode base64: %w", err)
	}
	return raw, nil
}
