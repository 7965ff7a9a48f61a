package keyspace

import (
	"fmt"
	"time"
)

const (
	// MaxSecretBytes bounds a secret. The longest there is in good faith is an RSA
	// key.
	MaxSecretBytes = 64 << 10

	maxSecretNameLen = 64
)

// Secret is something all nodes of a bucket must know and nobody else, made once
// by whichever of them needed it first.
type Secret struct {
	Name    string // of the key: lower-case letters, digits, "-" and "."
	Value   []byte
	Created time.Time
}

// Valid reports what is wrong with the row, if anything.
func (s *Secret) Valid() error {
	if !validSecretName(s.Name) {
		return fmt.Errorf("secret name %.100q: want 1..%d lower-case letters, digits, dots and dashes", s.Name, maxSecretNameLen)
	}
	if len(s.Value) > MaxSecretBytes {
		return fmt.Errorf("secret %q has %d bytes, want at most %d", s.Name, len(s.Value), MaxSecretBytes)
	}
	if len(s.Value) == 0 {
		return fmt.Errorf("secret %q is empty", s.Name)
	}
	return validTime(s.Created)
}

// AppendSecretKey appends the key of the secret called name.
func AppendSecretKey(dst []byte, name string) []byte {
	return append(append(dst, SecretPrefix), name...)
}

// DecodeSecretKey returns the name in the key of a secret.
func DecodeSecretKey(key []byte) (string, error) {
	rest, ok := cutPrefix(key, SecretPrefix, -1)
	if !ok || !validSecretName(string(rest)) {
		return "", keyError("secret", key)
	}
	return string(rest), nil
}

// AppendSecret appends the value of s, which must be valid.
func AppendSecret(dst []byte, s *Secret) []byte {
	dst = append(dst, rowVersion)
	dst = appendTime(dst, s.Created)
	return append(dst, s.Value...)
}

// DecodeSecret decodes the row of one secret.
func DecodeSecret(key, value []byte) (Secret, error) {
	name, err := DecodeSecretKey(key)
	if err != nil {
		return Secret{}, err
	}
	if len(value) > MaxSecretBytes+16 {
		return Secret{}, fmt.Errorf("decode secret row: value has %d bytes, want at most %d", len(value), MaxSecretBytes+16)
	}
	d := decoder[[]byte]{what: "secret", src: value}
	d.version()
	s := Secret{Name: name, Created: d.time()}
	s.Value = append(s.Value, d.take(len(d.src))...)
	if err := d.end(); err != nil {
		return Secret{}, err
	}
	if err := s.Valid(); err != nil {
		return Secret{}, fmt.Errorf("decode secret row: %w", err)
	}
	return s, nil
}

func validSecretName(s string) bool {
	if s == "" || len(s) > maxSecretNameLen {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}
