package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// namespace is the claim that holds what Attic, Celler and celler understand.
const namespace = "https://jwt.attic.rs/v1"

// maxRules bounds the patterns of one token. Every request walks them.
const maxRules = 1024

// maxClaimDepth bounds the nesting of claims we skip.
const maxClaimDepth = 64

// Claims is what a token says. Zero times are absent claims.
type Claims struct {
	Subject   string
	ID        string
	Issuer    string
	Audiences []string
	IssuedAt  time.Time
	NotBefore time.Time
	Expires   time.Time
	Rules     []Rule
}

// decodeClaims reads the payload of a token. It checks form only, not times.
func decodeClaims(payload []byte) (Claims, error) {
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.UseNumber()
	d := claimsDecoder{dec: dec}
	if err := d.object("claims", d.topLevel); err != nil {
		return Claims{}, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Claims{}, errors.New("decode claims: unexpected data after the object")
	}
	if !d.seenAccess {
		return Claims{}, fmt.Errorf("decode claims: there is no %s", quote(namespace))
	}
	return d.claims, nil
}

// claimsDecoder walks the claims token by token, because the order of the patterns
// matters and because 0 and 1 must be told from false, 1.0 and "1".
type claimsDecoder struct {
	dec        *json.Decoder
	claims     Claims
	seenAccess bool
}

// object reads one JSON object and calls field for each of its keys; field must
// consume the value.
func (d *claimsDecoder) object(what string, field func(key string) error) error {
	if err := d.delim(what, '{'); err != nil {
		return err
	}
	for d.dec.More() {
		tok, err := d.dec.Token()
		if err != nil {
			return fmt.Errorf("decode %s: %w", what, err)
		}
		key, ok := tok.(string)
		if !ok {
			return fmt.Errorf("decode %s: expected a key, found %v", what, tok)
		}
		if err := field(key); err != nil {
			return err
		}
	}
	return d.delim(what, '}')
}

func (d *claimsDecoder) delim(what string, want json.Delim) error {
	tok, err := d.dec.Token()
	if err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	if tok != want {
		return fmt.Errorf("decode %s: expected %q, found %s", what, want.String(), quote(fmt.Sprint(tok)))
	}
	return nil
}

// topLevel reads one claim. A repeated claim makes the token void: two readers could
// otherwise believe different values.
func (d *claimsDecoder) topLevel(key string) error {
	c := &d.claims
	switch key {
	case "exp":
		return d.time(key, &c.Expires)
	case "nbf":
		return d.time(key, &c.NotBefore)
	case "iat":
		return d.time(key, &c.IssuedAt)
	case "iss":
		return d.text(key, &c.Issuer)
	case "sub":
		return d.text(key, &c.Subject)
	case "jti":
		return d.text(key, &c.ID)
	case "aud":
		return d.audience()
	case namespace:
		if d.seenAccess {
			return fmt.Errorf("decode claims: %s appears twice", quote(namespace))
		}
		d.seenAccess = true
		return d.access()
	default:
		return d.skip()
	}
}

func (d *claimsDecoder) access() error {
	seen := false
	err := d.object(namespace, func(key string) error {
		if key != "caches" {
			return d.skip()
		}
		if seen {
			return errors.New("decode claims: \"caches\" appears twice")
		}
		seen = true
		return d.object("caches", d.rule)
	})
	if err == nil && !seen {
		err = fmt.Errorf("decode claims: %s has no \"caches\"", quote(namespace))
	}
	return err
}

// rule reads one pattern and its permission. A repeated pattern keeps its first place
// and takes its last value, as an insertion-ordered map would.
func (d *claimsDecoder) rule(key string) error {
	pattern, err := ParsePattern(key)
	if err != nil {
		return err
	}
	perm, err := d.permission(key)
	if err != nil {
		return err
	}
	for i := range d.claims.Rules {
		if d.claims.Rules[i].Pattern == pattern {
			d.claims.Rules[i].Permission = perm
			return nil
		}
	}
	if len(d.claims.Rules) == maxRules {
		return fmt.Errorf("decode claims: more than %d patterns", maxRules)
	}
	d.claims.Rules = append(d.claims.Rules, Rule{Pattern: pattern, Permission: perm})
	return nil
}

func (d *claimsDecoder) permission(pattern string) (Permission, error) {
	var p, seen Permission
	err := d.object("permission of "+quote(pattern), func(key string) error {
		for _, b := range permissionBits {
			if b.claim != key {
				continue
			}
			if *b.of(&seen) {
				return fmt.Errorf("decode permission of %s: %q appears twice", quote(pattern), key)
			}
			*b.of(&seen) = true
			return d.bit(pattern, key, b.of(&p))
		}
		return d.skip()
	})
	return p, err
}

func (d *claimsDecoder) bit(pattern, key string, to *bool) error {
	tok, err := d.dec.Token()
	if err != nil {
		return fmt.Errorf("decode permission of %s: %w", quote(pattern), err)
	}
	switch tok {
	case json.Number("0"):
		*to = false
	case json.Number("1"):
		*to = true
	default:
		return fmt.Errorf("decode permission of %s: %q: expected the integer 0 or 1, found %s", quote(pattern), key, quote(fmt.Sprint(tok)))
	}
	return nil
}

func (d *claimsDecoder) text(key string, to *string) error {
	if *to != "" {
		return fmt.Errorf("decode claims: %q appears twice", key)
	}
	tok, err := d.dec.Token()
	if err != nil {
		return fmt.Errorf("decode claims: %q: %w", key, err)
	}
	switch v := tok.(type) {
	case nil:
	case string:
		*to = v
	default:
		return fmt.Errorf("decode claims: %q: expected a string, found %s", key, quote(fmt.Sprint(tok)))
	}
	return nil
}

func (d *claimsDecoder) audience() error {
	if d.claims.Audiences != nil {
		return errors.New("decode claims: \"aud\" appears twice")
	}
	tok, err := d.dec.Token()
	if err != nil {
		return fmt.Errorf("decode claims: \"aud\": %w", err)
	}
	switch v := tok.(type) {
	case nil:
		return nil
	case string:
		d.claims.Audiences = []string{v}
		return nil
	case json.Delim:
		if v != '[' {
			break
		}
		d.claims.Audiences = []string{}
		for d.dec.More() {
			item, err := d.dec.Token()
			if err != nil {
				return fmt.Errorf("decode claims: \"aud\": %w", err)
			}
			s, ok := item.(string)
			if !ok || len(d.claims.Audiences) == maxRules {
				return fmt.Errorf("decode claims: \"aud\": expected at most %d strings", maxRules)
			}
			d.claims.Audiences = append(d.claims.Audiences, s)
		}
		return d.delim("\"aud\"", ']')
	}
	return fmt.Errorf("decode claims: \"aud\": expected a string or an array, found %s", quote(fmt.Sprint(tok)))
}

// maxUnixSeconds is the year 9999: beyond it a time means "for ever" and would only
// overflow.
const maxUnixSeconds = 253402300799

func (d *claimsDecoder) time(key string, to *time.Time) error {
	if !to.IsZero() {
		return fmt.Errorf("decode claims: %q appears twice", key)
	}
	tok, err := d.dec.Token()
	if err != nil {
		return fmt.Errorf("decode claims: %q: %w", key, err)
	}
	if tok == nil {
		return nil
	}
	num, ok := tok.(json.Number)
	if !ok {
		return fmt.Errorf("decode claims: %q: expected a number of seconds, found %s", key, quote(fmt.Sprint(tok)))
	}
	sec, err := num.Float64()
	if err != nil || math.IsNaN(sec) || sec < 0 {
		return fmt.Errorf("decode claims: %q: expected seconds since 1970, found %s", key, quote(num.String()))
	}
	whole, frac := math.Modf(min(sec, maxUnixSeconds))
	*to = time.Unix(int64(whole), int64(frac*1e9)).UTC()
	return nil
}

// skip consumes one value of any shape.
func (d *claimsDecoder) skip() error {
	depth := 0
	for {
		tok, err := d.dec.Token()
		if err != nil {
			return fmt.Errorf("decode claims: %w", err)
		}
		if delim, ok := tok.(json.Delim); ok {
			switch delim {
			case '{', '[':
				depth++
			default:
				depth--
			}
		}
		if depth > maxClaimDepth {
			return fmt.Errorf("decode claims: nested deeper than %d", maxClaimDepth)
		}
		if depth == 0 {
			return nil
		}
	}
}

// appendClaims writes the payload of a token: the same form, with zero rights and
// absent claims left out, and the rules in their order.
func appendClaims(dst []byte, c *Claims) []byte {
	dst = append(dst, '{')
	number := func(key string, t time.Time) {
		if !t.IsZero() {
			dst = appendKey(dst, key)
			dst = fmt.Appendf(dst, "%d", t.Unix())
		}
	}
	text := func(key, value string) {
		if value != "" {
			dst = appendKey(dst, key)
			dst = appendString(dst, value)
		}
	}
	number("exp", c.Expires)
	number("nbf", c.NotBefore)
	number("iat", c.IssuedAt)
	text("iss", c.Issuer)
	text("sub", c.Subject)
	text("jti", c.ID)
	if len(c.Audiences) > 0 {
		dst = appendKey(dst, "aud")
		dst = append(dst, '[')
		for i, a := range c.Audiences {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, a)
		}
		dst = append(dst, ']')
	}
	dst = appendKey(dst, namespace)
	dst = append(dst, `{"caches":{`...)
	for i, r := range c.Rules {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, string(r.Pattern))
		dst = append(dst, ":{"...)
		first := true
		for _, b := range permissionBits {
			if !*b.of(&r.Permission) {
				continue
			}
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = fmt.Appendf(dst, "%q:1", b.claim)
		}
		dst = append(dst, '}')
	}
	return append(dst, "}}}"...)
}

func appendKey(dst []byte, key string) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	return append(appendString(dst, key), ':')
}

func appendString(dst []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic("auth: a string did not marshal: " + err.Error()) // cannot happen: invalid UTF-8 is replaced
	}
	return append(dst, text...)
}
