package config

import (
	"fmt"
	"strings"
)

// Kinds of signing keys.
const (
	HS256       = "hs256"
	RS256       = "rs256"
	RS256Public = "rs256-public" // verifies, cannot mint
)

// Signing is the key that tokens are signed with, as it was configured.
type Signing struct {
	Kind string // HS256, RS256, RS256Public; "" for none
	Text string // base64 of the key, or a PEM text for the RSA kinds
	From string // where it came from, for people
}

// signingKeys is [jwt.signing] of the file: exactly one of them.
type signingKeys struct {
	RS256Public string `toml:"token-rs256-pubkey-base64"`
	RS256       string `toml:"token-rs256-secret-base64"`
	HS256       string `toml:"token-hs256-secret-base64"`
}

// loadSigning finds the signing key. As with Attic the file decides if it has one;
// else the environment does, a public key before a secret one and RSA before HMAC.
func loadSigning(env Env, keys *signingKeys, file *File) (Signing, error) {
	if keys == nil && file != nil {
		keys = file.signing
	}
	if keys != nil {
		return keys.only(file)
	}
	kinds := []struct{ kind, name string }{
		{RS256Public, "TOKEN_RS256_PUBKEY_BASE64"},
		{RS256, "TOKEN_RS256_SECRET_BASE64"},
		{HS256, "TOKEN_HS256_SECRET_BASE64"},
	}
	for _, k := range kinds {
		for _, family := range []string{"CELLER_SERVER_", "ATTIC_SERVER_"} {
			credential := strings.ReplaceAll(strings.ToLower(k.name), "_", "-")
			text, err := env.Secret("signing key", family+k.name, credential)
			if err != nil {
				return Signing{}, err
			}
			if text != "" {
				return Signing{Kind: k.kind, Text: text, From: "the environment (" + k.name + ")"}, nil
			}
		}
	}
	return Signing{}, nil
}

func (k *signingKeys) only(file *File) (Signing, error) {
	var found []Signing
	path := ""
	if file != nil {
		path = file.Path
	}
	for _, s := range []Signing{{RS256Public, k.RS256Public, path}, {RS256, k.RS256, path}, {HS256, k.HS256, path}} {
		if s.Text = strings.TrimSpace(s.Text); s.Text != "" {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return Signing{}, &FileError{Path: path, Problem: fmt.Sprintf("[jwt.signing] has %d keys; expected exactly one", len(found))}
	}
	return found[0], nil
}
