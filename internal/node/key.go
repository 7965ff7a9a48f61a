package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/config"
)

// tokenSecret names the row that keeps the token secret of a bucket whose servers
// were not configured with a key.
const tokenSecret = "token-hs256"

// KeyError reports a configured signing key that cannot be used.
type KeyError struct {
	From string
	Err  error
}

func (e *KeyError) Error() string { return fmt.Sprintf("signing key from %s: %v", e.From, e.Err) }

// Unwrap returns what is wrong with the key.
func (e *KeyError) Unwrap() error { return e.Err }

// parseKey reads a configured key. An RSA key may be a PEM text as it is, or base64 of one.
func parseKey(s config.Signing) (auth.Key, error) {
	pem := strings.HasPrefix(s.Text, "-----BEGIN")
	var key auth.Key
	var err error
	switch {
	case s.Kind == config.HS256:
		key, err = auth.ParseHS256Base64(s.Text)
	case s.Kind == config.RS256 && pem:
		key, err = auth.ParseRS256Secret([]byte(s.Text))
	case s.Kind == config.RS256:
		key, err = auth.ParseRS256SecretBase64(s.Text)
	case pem:
		key, err = auth.ParseRS256Public([]byte(s.Text))
	default:
		key, err = auth.ParseRS256PublicBase64(s.Text)
	}
	if err != nil {
		return key, &KeyError{From: s.From, Err: err}
	}
	return key, nil
}

// tokenKey returns the key that is configured, or the bucket's own, made by whichever
// server needed it first. It says whether that was this one.
func tokenKey(ctx context.Context, cat *catalog.Catalog, s config.Signing) (key auth.Key, made bool, err error) {
	if s.Kind != "" {
		key, err = parseKey(s)
		return key, false, err
	}
	secret, made, err := cat.Secret(ctx, tokenSecret, func() ([]byte, error) { return auth.GenerateHS256(rand.Reader) })
	if err != nil {
		return auth.Key{}, false, fmt.Errorf("read token secret from the bucket: %w", err)
	}
	key, err = auth.HS256(secret)
	return key, made, err
}

// TokenRequest says what a new token is to allow.
type TokenRequest struct {
	Subject  string
	Validity time.Duration // 0: for ever
	Rules    []TokenRule   // in order; of several that match a cache, the first counts
}

// TokenRule gives rights on the caches that a pattern selects.
type TokenRule struct {
	Pattern string   `json:"pattern"`
	Rights  []string `json:"rights"` // pull, push, delete, create-cache, configure-cache, configure-cache-retention, destroy-cache, pin
}

// claims turns the request into claims that hold from now on.
func (r TokenRequest) claims(now time.Time) (auth.Claims, error) {
	c := auth.Claims{Subject: r.Subject, NotBefore: now}
	if r.Validity > 0 {
		c.Expires = now.Add(r.Validity)
	}
	for _, rule := range r.Rules {
		pattern, err := auth.ParsePattern(rule.Pattern)
		if err != nil {
			return c, &RightsError{err}
		}
		perm, err := auth.ParsePermission(rule.Rights...)
		if err != nil {
			return c, &RightsError{err}
		}
		c.Rules = append(c.Rules, auth.Rule{Pattern: pattern, Permission: perm})
	}
	return c, nil
}

// adminRequest asks for every right on every cache.
func adminRequest(validity time.Duration) TokenRequest {
	return TokenRequest{Subject: "admin", Validity: validity, Rules: []TokenRule{{Pattern: "*", Rights: auth.AllPermissions().Names()}}}
}

// verifierOptions are the bounds of [jwt].
func verifierOptions(j config.JWT) auth.Options {
	return auth.Options{Issuer: j.TokenBoundIssuer, Audiences: j.TokenBoundAudiences}
}
