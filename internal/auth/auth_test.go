package auth

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
)

var testNow = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// awkwardSecret is not UTF-8, has zeros in it, and is shorter than the hash.
var awkwardSecret = []byte{0xff, 0xfe, 0x00, 'k', 'e', 'y', 0x80, 0x00}

func mustHS256(t testing.TB, secret []byte) Key {
	t.Helper()
	k, err := HS256(secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustRS256(t testing.TB) Key {
	t.Helper()
	k, err := ParseRS256Secret(mustRead(t, "testdata/rsa2048.pkcs1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustRead(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signRaw signs any payload and header fields, where Mint would only make good ones.
func signRaw(t testing.TB, k Key, payload string, extra map[jose.HeaderKey]any) string {
	t.Helper()
	o := &jose.SignerOptions{}
	for name, v := range extra {
		o.WithHeader(name, v)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: k.alg, Key: k.sign}, o)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := s.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	token, err := sig.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

const fivePatterns = `"https://jwt.attic.rs/v1":{"caches":{` +
	`"all-*":{"r":1},"all-ci-*":{"w":1},"cache-rw":{"r":1,"w":1},"cache-ro":{"r":1,"cq":0},"team-*":{"r":1,"w":1,"d":1,"cc":1,"cr":1,"cq":1,"cd":1}}}`

func TestGoldenTokens(t *testing.T) {
	// Made once, by hand with openssl, from the claims below; they must be believed for ever.
	hs := strings.TrimSpace(string(mustRead(t, "testdata/hs256.jwt")))
	rs := strings.TrimSpace(string(mustRead(t, "testdata/rs256.jwt")))
	for name, c := range map[string]struct {
		key   Key
		token string
	}{
		"HS256": {mustHS256(t, awkwardSecret), hs},
		"RS256": {mustRS256(t), rs},
	} {
		t.Run(name, func(t *testing.T) {
			v := New(c.key, Options{})
			for range 1000 { // the order of patterns must not depend on a map
				g := v.Authenticate("bearer "+c.token, testNow)
				if g.Anonymous() {
					t.Fatalf("golden token is not believed: %v", g.Rejected)
				}
				if got := g.Permission("all-ci-x"); got != (Permission{Pull: true}) {
					t.Fatalf("all-ci-x: first pattern in document order must win, got %v", got)
				}
				if g.Subject != "golden" || !g.Expires.Equal(time.Unix(4102444800, 0)) {
					t.Fatalf("subject %q, expires %v", g.Subject, g.Expires)
				}
			}
			g := v.Verify(c.token, testNow)
			for cache, want := range map[string]string{
				"all-": "pull", "all-ci-": "pull", "cache-rw": "pull,push", "cache-ro": "pull",
				"team-":  "pull,push,delete,create-cache,configure-cache,configure-cache-retention,destroy-cache",
				"all":    "none",
				"teams":  "none",
				"x-all-": "none",
			} {
				if got := g.Permission(cache).String(); got != want {
					t.Errorf("permission on %q is %s, want %s", cache, got, want)
				}
			}
		})
	}
}

func TestMintRoundTrip(t *testing.T) {
	for _, key := range []Key{mustHS256(t, awkwardSecret), mustHS256(t, []byte{1}), mustRS256(t)} {
		v := New(key, Options{Issuer: "celler.test", Audiences: []string{"a", "b"}})
		in := Claims{
			Subject: "ci", ID: "17", NotBefore: testNow, Expires: testNow.Add(time.Hour),
			Rules: []Rule{{"zz-*", Permission{Pull: true}}, {"aa", AllPermissions()}, {"*", Permission{Push: true}}},
		}
		token, err := v.Mint(in)
		if err != nil {
			t.Fatal(err)
		}
		g := v.Authenticate("Bearer "+token, testNow)
		if g.Rejected != nil {
			t.Fatalf("%v: own token is not believed: %v", key, g.Rejected)
		}
		if diff := cmp.Diff(in.Rules, g.Rules); diff != "" {
			t.Errorf("rules (-minted +read):\n%s", diff)
		}
		seen, err := Inspect(token)
		if err != nil {
			t.Fatal(err)
		}
		in.Issuer, in.Audiences = "celler.test", []string{"a", "b"}
		if diff := cmp.Diff(in, seen.Claims); diff != "" {
			t.Errorf("claims (-minted +inspected):\n%s", diff)
		}
		if seen.Type != "JWT" || seen.Algorithm != key.Algorithm() {
			t.Errorf("header is %q %q", seen.Type, seen.Algorithm)
		}
	}
}

func TestClaims(t *testing.T) {
	key := mustHS256(t, awkwardSecret)
	const caches = `"https://jwt.attic.rs/v1":{"caches":{"c":{"r":1}}}`
	now := testNow.Unix()
	v := New(key, Options{})
	try := func(v *Verifier, payload string) Grant {
		return v.Authenticate("bearer "+signRaw(t, key, payload, nil), testNow)
	}
	ok := func(payload string) {
		t.Helper()
		if g := try(v, payload); g.Rejected != nil || g.Permission("c") != (Permission{Pull: true}) {
			t.Errorf("%s: %v, permission %v", payload, g.Rejected, g.Permission("c"))
		}
	}
	bad := func(payload, why string) {
		t.Helper()
		g := try(v, payload)
		if g.Rejected == nil || !g.Anonymous() || g.Permission("c").CanDiscover() {
			t.Errorf("%s: believed, want it refused", payload)
			return
		}
		if !strings.Contains(g.Rejected.Error(), why) {
			t.Errorf("%s: refused with %q, want %q in it", payload, g.Rejected, why)
		}
	}
	ok(`{` + caches + `}`)
	ok(`{"other":{"deep":[{"x":1}]},` + caches + `,"more":null}`)
	ok(`{"exp":null,"nbf":null,"iat":null,"iss":null,"aud":null,"sub":null,` + caches + `}`)
	ok(`{"https://jwt.attic.rs/v1":{"x":[],"caches":{"c":{"r":1,"w":0,"unknown":true}},"y":2}}`)
	ok(`{"https://jwt.attic.rs/v1":{"caches":{"c":{"w":1},"c":{"r":1}}}}`)
	ok(`{"aud":"one",` + caches + `}`)
	ok(`{"aud":["one","two"],` + caches + `}`)
	// Times, with the minute of leeway, as integers and as fractions.
	ok(fmt.Sprintf(`{"exp":%d,%s}`, now, caches))
	ok(fmt.Sprintf(`{"exp":%d.5,%s}`, now, caches))
	ok(fmt.Sprintf(`{"nbf":%d,"iat":%d,%s}`, now+60, now+60, caches))
	ok(`{"exp":1e300,` + caches + `}`)
	bad(fmt.Sprintf(`{"exp":%d,%s}`, now-1, caches), "expired")
	bad(fmt.Sprintf(`{"exp":%d.5,%s}`, now-1, caches), "expired")
	bad(fmt.Sprintf(`{"nbf":%d,%s}`, now+61, caches), "not valid before")
	bad(fmt.Sprintf(`{"iat":%d,%s}`, now+61, caches), "in the future")
	bad(`{"exp":-1,`+caches+`}`, "since 1970")
	bad(`{"exp":"1",`+caches+`}`, "number")
	bad(fmt.Sprintf(`{"exp":1,"exp":%d,%s}`, now+100, caches), "twice")
	bad(`{"sub":7,`+caches+`}`, "string")
	bad(`{"aud":7,`+caches+`}`, "aud")
	bad(`{"aud":[7],`+caches+`}`, "aud")
	// Strict integers.
	for _, v := range []string{"true", "false", "2", "-0", "1.0", "1e0", `"1"`, "null", "[1]", "{}", "01", "99999999999999999999"} {
		bad(`{"https://jwt.attic.rs/v1":{"caches":{"c":{"r":`+v+`}}}}`, "decode")
	}
	bad(`{}`, "there is no")
	bad(`{"https://jwt.attic.rs/v1":null}`, "expected")
	bad(`{"https://jwt.attic.rs/v1":{}}`, "no \"caches\"")
	bad(`{"https://jwt.attic.rs/v1":{"caches":[]}}`, "expected")
	bad(`{"https://jwt.attic.rs/v1":{"caches":{"c":{"r":1,"r":1}}}}`, "twice")
	bad(`{`+caches+`,`+caches+`}`, "twice")
	bad(`{"https://jwt.attic.rs/v1":{"caches":{"c":{"r":1},"bad pattern":{}}}}`, "pattern")
	bad(`{"https://jwt.attic.rs/v1":{"caches":{"c":{"r":1},"":{}}}}`, "pattern")
	bad(`{"https://jwt.attic.rs/v1":{"caches":{"c":{"r":1},"-c":{}}}}`, "pattern")
	bad(`{"https://jwt.attic.rs/v1":{"caches":{"c":{"r":1},"c?":{}}}}`, "pattern")
	bad(`{`+caches+`} x`, "")
	bad(`{`+caches+`}{}`, "after the object")
	bad(`[]`, "expected")
	bad(``, "")
	bad(`{"x":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`,`+caches+`}`, "deeper")
}

func TestBindings(t *testing.T) {
	key := mustHS256(t, awkwardSecret)
	const caches = `"https://jwt.attic.rs/v1":{"caches":{"c":{"r":1}}}`
	f := func(o Options, payload string, want bool) {
		t.Helper()
		g := New(key, o).Verify(signRaw(t, key, payload, nil), testNow)
		if got := !g.Anonymous(); got != want {
			t.Errorf("issuer %q, audiences %q, %s: believed is %v, want %v (%v)", o.Issuer, o.Audiences, payload, got, want, g.Rejected)
		}
	}
	f(Options{Issuer: "i"}, `{"iss":"i",`+caches+`}`, true)
	f(Options{Issuer: "i"}, `{"iss":"j",`+caches+`}`, false)
	f(Options{Issuer: "i"}, `{`+caches+`}`, false)
	f(Options{}, `{"iss":"j",`+caches+`}`, true)
	f(Options{Audiences: []string{"a", "b"}}, `{"aud":"b",`+caches+`}`, true)
	f(Options{Audiences: []string{"a", "b"}}, `{"aud":["x","a"],`+caches+`}`, true)
	f(Options{Audiences: []string{"a", "b"}}, `{"aud":["x"],`+caches+`}`, false)
	f(Options{Audiences: []string{"a", "b"}}, `{"aud":[],`+caches+`}`, false)
	f(Options{Audiences: []string{"a", "b"}}, `{`+caches+`}`, false)
	f(Options{Leeway: -1}, fmt.Sprintf(`{"nbf":%d,%s}`, testNow.Unix()+1, caches), false)
	f(Options{Leeway: time.Hour}, fmt.Sprintf(`{"nbf":%d,%s}`, testNow.Unix()+3599, caches), true)
	f(Options{Leeway: time.Hour}, fmt.Sprintf(`{"exp":%d,%s}`, testNow.Unix()-1, caches), false) // it ends when it says
}

func TestHeaderOfToken(t *testing.T) {
	hs, rs := mustHS256(t, awkwardSecret), mustRS256(t)
	const payload = `{"https://jwt.attic.rs/v1":{"caches":{"c":{"r":1}}}}`
	f := func(name string, v Key, token string, want bool) {
		t.Helper()
		if g := New(v, Options{}).Verify(token, testNow); !g.Anonymous() != want {
			t.Errorf("%s: believed is %v, want %v (%v)", name, !g.Anonymous(), want, g.Rejected)
		}
	}
	typ := func(v string) string { return signRaw(t, hs, payload, map[jose.HeaderKey]any{"typ": v}) }
	f("no typ", hs, signRaw(t, hs, payload, nil), true)
	f("typ jwt", hs, typ("jwt"), true)
	f("typ AT+jwt", hs, typ("AT+jwt"), true)
	f("typ JOSE", hs, typ("JOSE"), false)
	f("kid is ignored", hs, signRaw(t, hs, payload, map[jose.HeaderKey]any{"kid": "x"}), true)
	f("crit", hs, signRaw(t, hs, payload, map[jose.HeaderKey]any{"crit": []string{"b64"}, "b64": true}), false)
	f("long header", hs, signRaw(t, hs, payload, map[jose.HeaderKey]any{"x": strings.Repeat("x", 8192)}), false)

	f("RS256 for HS256", hs, signRaw(t, rs, payload, nil), false)
	f("HS256 for RS256", rs, signRaw(t, hs, payload, nil), false)
	// The classic: sign with HMAC, using the public key's text as the secret.
	f("public key as secret", rs, signRaw(t, mustHS256(t, mustRead(t, "testdata/rsa2048.spki.pem")), payload, nil), false)
	enc := base64.RawURLEncoding.EncodeToString
	f("alg none", hs, enc([]byte(`{"alg":"none"}`))+"."+enc([]byte(payload))+".", false)
	f("no key", Key{}, signRaw(t, hs, payload, nil), false)
	f("other secret", mustHS256(t, []byte("other")), signRaw(t, hs, payload, nil), false)
	good := signRaw(t, hs, payload, nil)
	for i := range len(good) {
		if good[i] == '.' {
			continue
		}
		broken := []byte(good)
		broken[i] ^= 4
		if string(broken) != good {
			f(fmt.Sprintf("byte %d changed", i), hs, string(broken), false)
		}
	}
	f("too long", hs, signRaw(t, hs, `{"x":"`+strings.Repeat("x", 800_000)+`",`+payload[1:], nil), false)
	f("long", hs, signRaw(t, hs, `{"x":"`+strings.Repeat("x", 700_000)+`",`+payload[1:], nil), true)
	for _, junk := range []string{"", ".", "..", "a.b", "a.b.c.d", "....", good + ".", "." + good, good[:len(good)-1]} {
		f("junk "+junk, hs, junk, false)
	}
}

func TestAuthorizationHeader(t *testing.T) {
	key := mustHS256(t, awkwardSecret)
	v := New(key, Options{})
	token := signRaw(t, key, `{"https://jwt.attic.rs/v1":{"caches":{"c":{"r":1}}}}`, nil)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	f := func(header string, want bool) {
		t.Helper()
		if g := v.Authenticate(header, testNow); !g.Anonymous() != want || want == (g.Rejected != nil) {
			t.Errorf("%.60s: believed is %v, want %v (%v)", header, !g.Anonymous(), want, g.Rejected)
		}
	}
	f("bearer "+token, true)
	f("Bearer "+token, true)
	f("BEARER "+token, true)
	f("Basic "+b64(":"+token), true)
	f("baSIC "+b64("user:"+token), true)
	f("basic "+b64("a user/with+signs:"+token), true)
	for _, user := range []string{"", "a", "ab", "abc"} {
		f("Basic "+strings.TrimRight(b64(user+":"+token), "="), true) // no padding
		f("Basic "+b64(user+":"+token), true)
	}
	f("basic "+b64("user:x:"+token), false) // the password begins after the first colon
	f("basic "+b64(token), false)
	f("basic "+b64(":"), false)
	f("basic !!!", false)
	f("basic "+b64("\xff:"+token), false)
	f("token "+token, false)
	f("bearer", false)
	f("bearer ", false)
	f(token, false)
	if g := v.Authenticate("", testNow); !g.Anonymous() || g.Rejected != nil {
		t.Errorf("no header: %+v, want anonymous without a reason", g)
	}
}

func TestMemo(t *testing.T) {
	key := mustHS256(t, awkwardSecret)
	expires := testNow.Add(time.Hour)
	v := New(key, Options{MemoTokens: 4, Leeway: -1})
	var tokens []string
	for i := range 20 {
		token, err := v.Mint(Claims{Subject: fmt.Sprint(i), Expires: expires, Rules: []Rule{{"c", Permission{Pull: true}}}})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	for range 3 {
		for i, token := range tokens {
			if g := v.Verify(token, testNow); g.Subject != fmt.Sprint(i) {
				t.Fatalf("token %d: subject %q (%v)", i, g.Subject, g.Rejected)
			}
			if n := len(v.memo.young) + len(v.memo.old); n > 4 {
				t.Fatalf("memo holds %d tokens, want at most 4", n)
			}
		}
	}
	// A remembered token still expires.
	if g := v.Verify(tokens[19], expires.Add(time.Second)); !g.Anonymous() {
		t.Error("a remembered token is believed after it expired")
	}
	// A wrong token is not remembered.
	before := len(v.memo.young) + len(v.memo.old)
	v.Verify(tokens[0]+"A", testNow)
	if after := len(v.memo.young) + len(v.memo.old); after != before {
		t.Errorf("a wrong token went into the memo: %d entries, had %d", after, before)
	}
}

func TestMemoSavesTheSignature(t *testing.T) {
	v := New(mustRS256(t), Options{})
	token, err := v.Mint(Claims{Rules: []Rule{{"c", Permission{Pull: true}}}})
	if err != nil {
		t.Fatal(err)
	}
	v.Authenticate("bearer "+token, testNow)
	header := "bearer " + token
	if n := testing.AllocsPerRun(100, func() { v.Authenticate(header, testNow) }); n > 2 {
		t.Errorf("a remembered token costs %v allocations, want at most 2", n)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	for name, o := range map[string]Options{"remembered": {}, "verified": {MemoTokens: -1}} {
		b.Run(name, func(b *testing.B) {
			v := New(mustRS256(b), o)
			token, err := v.Mint(Claims{Rules: []Rule{{"c", Permission{Pull: true}}}})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				v.Authenticate("bearer "+token, testNow)
			}
		})
	}
}
