package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// tokenOf finds the token in an Authorization header: the whole of a bearer credential, or
// the password of a basic one, which is how curl and Nix send a netrc entry. The user
// name says nothing. The scheme may be in any case, and base64 may lack its padding.
func tokenOf(header string) (string, error) {
	scheme, rest, ok := strings.Cut(header, " ")
	if !ok {
		return "", errors.New("read authorization: expected a scheme, a space and credentials")
	}
	switch {
	case strings.EqualFold(scheme, "bearer"):
		return strings.TrimSpace(rest), nil
	case strings.EqualFold(scheme, "basic"):
		if len(rest) > maxTokenBytes*2 {
			return "", errors.New("read authorization: the basic credentials are too long")
		}
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(rest), "="))
		if err != nil {
			return "", fmt.Errorf("read authorization: basic credentials: %w", err)
		}
		if !utf8.Valid(raw) {
			return "", errors.New("read authorization: the basic credentials are not UTF-8")
		}
		_, password, ok := strings.Cut(string(raw), ":")
		if !ok {
			return "", errors.New("read authorization: the basic credentials have no password")
		}
		return password, nil
	default:
		return "", fmt.Errorf("read authorization: unknown scheme %s", quote(scheme))
	}
}
