package auth

import (
	"encoding/base64"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"exp":1,"nbf":2.5,"iat":3,"iss":"i","aud":["a"],"sub":"s","jti":"j",` + fivePatterns + `}`))
	f.Add([]byte(`{"aud":"a","x":[{}],` + fivePatterns + `}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := decodeClaims(payload)
		if err != nil {
			return
		}
		text := appendClaims(nil, &c)
		again, err := decodeClaims(text)
		if err != nil {
			t.Fatalf("%s: own text is refused: %v", text, err)
		}
		third, err := decodeClaims(appendClaims(nil, &again))
		if err != nil {
			t.Fatal(err)
		}
		// The first round drops fractions of seconds and empty lists; then it is stable.
		if diff := cmp.Diff(again, third); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzAuthenticate(f *testing.F) {
	key, err := HS256(awkwardSecret)
	if err != nil {
		f.Fatal(err)
	}
	token, err := key.Mint(Claims{Rules: []Rule{{"c", Permission{Pull: true}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("bearer " + token)
	f.Add("basic Onh4eA==")
	f.Add("bearer eyJhbGciOiJub25lIn0.e30.")
	v := New(key, Options{})
	f.Fuzz(func(t *testing.T, header string) {
		g := v.Authenticate(header, testNow)
		if g.Anonymous() && len(g.Rules) > 0 {
			t.Fatalf("anonymous with rules: %+v", g)
		}
		_, _ = Inspect(header)
	})
}

// FuzzKeys reads keys as people paste them. What is accepted must verify its own tokens.
func FuzzKeys(f *testing.F) {
	for _, name := range []string{"rsa2048.pkcs1.pem", "rsa2048.pkcs8.pem", "rsa2048.spki.pem", "rsa2048.rsapub.pem", "rsa1024.pkcs1.pem", "ec256.pkcs8.pem"} {
		f.Add(base64.StdEncoding.EncodeToString(mustRead(f, "testdata/"+name)))
	}
	f.Add("c2VjcmV0")
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(string) (Key, error){
			ParseHS256Base64, ParseRS256SecretBase64, ParseRS256PublicBase64,
			func(s string) (Key, error) { return ParseRS256Secret([]byte(s)) },
			func(s string) (Key, error) { return ParseRS256Public([]byte(s)) },
		} {
			k, err := parse(text)
			if err != nil || !k.CanSign() {
				continue
			}
			token, err := k.Mint(Claims{Rules: []Rule{{"c", Permission{Pull: true}}}})
			if err != nil {
				continue // an RSA key whose numbers do not fit together
			}
			if g := New(k, Options{}).Verify(token, testNow); g.Anonymous() {
				t.Fatalf("%v does not verify its own token: %v", k, g.Rejected)
			}
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add("team-*", "team-a", "pull")
	f.Add("*a*b", "ab", "")
	f.Fuzz(func(t *testing.T, pattern, name, right string) {
		if perm, err := ParsePermission(right); err == nil && perm.String() != right {
			t.Fatalf("%q is taken as %q", right, perm)
		}
		p, err := ParsePattern(pattern)
		if err != nil {
			return
		}
		if q, err := ParsePattern(name); err == nil && p.includes(q) && !p.intersects(q) {
			t.Fatalf("%q includes %q and does not intersect it", p, q)
		}
		if first, again := p.Matches(name), p.Matches(name); first != again {
			t.Fatalf("%q matches %q only sometimes", p, name)
		}
	})
}
