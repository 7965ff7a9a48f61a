package auth

import (
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
