package auth

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestPinRight: the right to pin stands beside Attic's letters, where a reader that knows
// only those finds them unchanged; and none of Attic's rights brings it along.
func TestPinRight(t *testing.T) {
	key := mustHS256(t, awkwardSecret)
	token, err := key.Mint(Claims{Subject: "ci", Expires: testNow.Add(time.Hour), Rules: []Rule{
		{"ci", Permission{Pull: true, Push: true, Pin: true}},
		{"*", Permission{Pin: true}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"caches":{"ci":{"r":1,"w":1,"pin":1},"*":{"pin":1}}}`
	if !strings.Contains(string(payload), want) {
		t.Errorf("claims %s, want them to hold %s", payload, want)
	}

	// What Attic makes of it: a structure of its seven letters, all else skipped.
	var attic struct {
		Access struct {
			Caches map[string]struct {
				R, W, D, CC, CR, CQ, CD int
			} `json:"caches"`
		} `json:"https://jwt.attic.rs/v1"`
	}
	if err := json.Unmarshal(payload, &attic); err != nil {
		t.Fatal(err)
	}
	if ci := attic.Access.Caches["ci"]; ci.R != 1 || ci.W != 1 || ci.D+ci.CC+ci.CR+ci.CQ+ci.CD != 0 {
		t.Errorf("Attic's letters on ci: %+v", ci)
	}

	v := New(key, Options{})
	g := v.Verify(token, testNow)
	if p := g.Permission("ci"); !p.Pin || !p.Push || p.Delete {
		t.Errorf("permission on ci: %v", p)
	}
	if p := g.Permission("other"); p != (Permission{Pin: true}) || !p.CanDiscover() {
		t.Errorf("permission on other: %v", p)
	}
	if g.Covers("*", Permission{Pin: true, Push: true}) || !g.Covers("*", Permission{Pin: true}) {
		t.Error("what the token covers is wrong")
	}

	all := signRaw(t, key, `{"https://jwt.attic.rs/v1":{"caches":{"*":{"r":1,"w":1,"d":1,"cc":1,"cr":1,"cq":1,"cd":1}}}}`, nil)
	if p := v.Verify(all, testNow).Permission("ci"); p.Pin {
		t.Error("a token with all of Attic's rights may pin")
	}
	for _, value := range []string{"true", "2", "1.0", `"1"`, `0,"pin":1`} {
		odd := signRaw(t, key, `{"https://jwt.attic.rs/v1":{"caches":{"*":{"r":1,"pin":`+value+`}}}}`, nil)
		if g := v.Verify(odd, testNow); !g.Anonymous() {
			t.Errorf(`"pin":%s is believed: %v`, value, g.Permission("ci"))
		}
	}
	if p, err := ParsePermission("pin", "pull"); err != nil || p.String() != "pull,pin" {
		t.Errorf("%v, %v", p, err)
	}
}
