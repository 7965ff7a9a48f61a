package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

const (
	// maxTokenBytes is Celler's bound on a whole token; a proxy's header limit is
	// usually far below it.
	maxTokenBytes = 1_000_000
	// maxHeaderBytes bounds the first part of a token.
	maxHeaderBytes = 8192
)

// errSignature hides which of the many ways a signature was wrong: nobody needs it.
var errSignature = errors.New("verify token: the signature does not match")

// tokenHeader is the part of a token before the first dot.
type tokenHeader struct {
	Algorithm string
	Type      string
	KeyID     string
}

// readToken checks the signature of a token and decodes it. Times and bindings are
// the caller's to check.
func readToken(token string, key Key) (Claims, error) {
	if _, err := readHeader(token); err != nil {
		return Claims{}, err
	}
	if key.alg == "" {
		return Claims{}, errors.New("verify token: there is no key to verify it with")
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{key.alg})
	if err != nil {
		return Claims{}, fmt.Errorf("parse token: %w", err)
	}
	payload, err := signed.Verify(key.verify)
	if err != nil {
		return Claims{}, errSignature
	}
	return decodeClaims(payload)
}

// readHeader checks the sizes, the type and the critical extensions, none of which
// may cost a signature.
func readHeader(token string) (tokenHeader, error) {
	if len(token) > maxTokenBytes {
		return tokenHeader{}, fmt.Errorf("parse token: expected at most %d bytes, found %d", maxTokenBytes, len(token))
	}
	first, rest, ok := strings.Cut(token, ".")
	if !ok || strings.Count(rest, ".") != 1 {
		return tokenHeader{}, errors.New("parse token: expected three parts with dots between them")
	}
	if len(first) > maxHeaderBytes {
		return tokenHeader{}, fmt.Errorf("parse token: expected a header of at most %d bytes, found %d", maxHeaderBytes, len(first))
	}
	for part := range strings.SplitSeq(token, ".") {
		// Two spellings of one token would be one token with two names.
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part[len(part)&^3:]); err != nil {
			return tokenHeader{}, fmt.Errorf("parse token: %w", err)
		}
	}
	raw, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		return tokenHeader{}, fmt.Errorf("parse token header: %w", err)
	}
	var h struct {
		Alg  string            `json:"alg"`
		Typ  *string           `json:"typ"`
		Kid  string            `json:"kid"`
		Crit []json.RawMessage `json:"crit"`
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return tokenHeader{}, fmt.Errorf("parse token header: %w", err)
	}
	if len(h.Crit) > 0 {
		return tokenHeader{}, errors.New("parse token header: it has critical extensions, none of which is known here")
	}
	out := tokenHeader{Algorithm: h.Alg, KeyID: h.Kid}
	if h.Typ != nil {
		out.Type = *h.Typ
		if upper := strings.ToUpper(*h.Typ); upper != "JWT" && !strings.HasSuffix(upper, "+JWT") {
			return tokenHeader{}, fmt.Errorf("parse token header: expected type JWT, found %s", quote(*h.Typ))
		}
	}
	return out, nil
}

// Inspection is what a token says of itself, believed or not.
type Inspection struct {
	Algorithm string
	Type      string
	KeyID     string
	Claims    Claims
}

// Inspect decodes a token without checking its signature, its times or for whom
// it is: for showing it to a person, never for deciding anything.
func Inspect(token string) (Inspection, error) {
	h, err := readHeader(token)
	if err != nil {
		return Inspection{}, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		return Inspection{}, fmt.Errorf("parse token claims: %w", err)
	}
	claims, err := decodeClaims(raw)
	if err != nil {
		return Inspection{}, err
	}
	return Inspection{Algorithm: h.Algorithm, Type: h.Type, KeyID: h.KeyID, Claims: claims}, nil
}

// ErrVerifyOnly reports that the key at hand can verify tokens but not make them.
var ErrVerifyOnly = errors.New("mint token: only a public key is configured, which cannot sign")

// Mint signs claims as they are. [Verifier.Mint] fills in what its verifier will ask for.
func (k Key) Mint(c Claims) (string, error) {
	if !k.CanSign() {
		return "", ErrVerifyOnly
	}
	for _, r := range c.Rules {
		if _, err := ParsePattern(string(r.Pattern)); err != nil {
			return "", fmt.Errorf("mint token: %w", err)
		}
	}
	if len(c.Rules) > maxRules {
		return "", fmt.Errorf("mint token: expected at most %d patterns, found %d", maxRules, len(c.Rules))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: k.alg, Key: k.sign}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	signed, err := signer.Sign(appendClaims(nil, &c))
	if err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	return token, nil
}

// tokenIDBytes makes a "jti" long enough never to be drawn twice.
const tokenIDBytes = 16

// NewTokenID draws a "jti".
func NewTokenID(rand io.Reader) (string, error) {
	var raw [tokenIDBytes]byte
	if _, err := io.ReadFull(rand, raw[:]); err != nil {
		return "", fmt.Errorf("draw token id: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw[:]), nil
}
