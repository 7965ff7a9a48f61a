package auth

import (
	"fmt"
	"slices"
	"time"
)

// DefaultLeeway is how far clocks may disagree about nbf and iat: a minute is what
// machines without NTP drift in weeks, and without it a token that another machine has just
// minted would not work yet. When a token ends is when it says it ends.
const DefaultLeeway = time.Minute

// Options of a [Verifier]. The zero value works.
type Options struct {
	// Issuer, if set, must be the token's "iss"; Mint writes it. Default: not checked.
	Issuer string
	// Audiences, if set, must share a member with the token's "aud"; Mint writes them. Default: not checked.
	Audiences []string
	// Leeway is the clock skew allowed for nbf and iat. Default DefaultLeeway; negative: none.
	Leeway time.Duration
	// MemoTokens is how many verified tokens are remembered. Default 1024; negative: none.
	MemoTokens int
}

const defaultMemoTokens = 1024

func (o Options) withDefaults() Options {
	switch {
	case o.Leeway == 0:
		o.Leeway = DefaultLeeway
	case o.Leeway < 0:
		o.Leeway = 0
	}
	switch {
	case o.MemoTokens == 0:
		o.MemoTokens = defaultMemoTokens
	case o.MemoTokens < 0:
		o.MemoTokens = 0
	}
	return o
}

// Verifier turns Authorization headers into Grants.
type Verifier struct {
	key  Key
	opts Options
	memo *memo
}

// New makes a Verifier. With the zero Key every caller is anonymous.
func New(key Key, o Options) *Verifier {
	o = o.withDefaults()
	return &Verifier{key: key, opts: o, memo: newMemo(o.MemoTokens)}
}

// Key returns the verifier's key.
func (v *Verifier) Key() Key { return v.key }

// Authenticate reads the value of an Authorization header ("" if there was none). It
// never fails: what is not believed gives the anonymous Grant, with the reason.
func (v *Verifier) Authenticate(header string, now time.Time) Grant {
	if header == "" {
		return Grant{}
	}
	token, err := tokenOf(header)
	if err != nil {
		return Grant{Rejected: err}
	}
	return v.Verify(token, now)
}

// Verify is Authenticate for a bare token.
func (v *Verifier) Verify(token string, now time.Time) Grant {
	claims, err := v.memo.claims(token, func() (Claims, error) { return readToken(token, v.key) })
	if err == nil {
		err = v.check(&claims, now)
	}
	if err != nil {
		return Grant{Rejected: err}
	}
	return Grant{
		Subject:       claims.Subject,
		ID:            claims.ID,
		Expires:       claims.Expires,
		Rules:         claims.Rules,
		authenticated: true,
	}
}

// ClaimsError reports a token that is genuine, and not to be believed here and now.
type ClaimsError struct {
	Problem string // "expired at …": what is the matter with the token, which is the subject
}

func (e *ClaimsError) Error() string { return "check token: it " + e.Problem }

func claimsError(format string, args ...any) error {
	return &ClaimsError{Problem: fmt.Sprintf(format, args...)}
}

// check judges times and bindings. It runs on every call, also for a remembered token.
func (v *Verifier) check(c *Claims, now time.Time) error {
	switch leeway := v.opts.Leeway; {
	case !c.Expires.IsZero() && now.After(c.Expires):
		return claimsError("expired at %s", c.Expires.Format(time.RFC3339))
	case now.Add(leeway).Before(c.NotBefore):
		return claimsError("is not valid before %s", c.NotBefore.Format(time.RFC3339))
	case now.Add(leeway).Before(c.IssuedAt):
		return claimsError("was issued in the future, at %s", c.IssuedAt.Format(time.RFC3339))
	}
	if want := v.opts.Issuer; want != "" && c.Issuer != want {
		return claimsError("has issuer %s, expected %s", quote(c.Issuer), quote(want))
	}
	if want := v.opts.Audiences; len(want) > 0 && !slices.ContainsFunc(want, func(a string) bool { return slices.Contains(c.Audiences, a) }) {
		return claimsError("is for another audience")
	}
	return nil
}

// Mint makes a token that this Verifier believes: issuer and audiences are filled in
// where the claims leave them empty.
func (v *Verifier) Mint(c Claims) (string, error) {
	if c.Issuer == "" {
		c.Issuer = v.opts.Issuer
	}
	if len(c.Audiences) == 0 {
		c.Audiences = v.opts.Audiences
	}
	return v.key.Mint(c)
}
