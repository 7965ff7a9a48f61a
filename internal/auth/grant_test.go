package auth

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

func TestParsePattern(t *testing.T) {
	ok := func(s string) {
		t.Helper()
		if _, err := ParsePattern(s); err != nil {
			t.Error(err)
		}
	}
	bad := func(s string) {
		t.Helper()
		if p, err := ParsePattern(s); err == nil {
			t.Errorf("%q was taken as %q", s, p)
		}
	}
	ok("valid-name")
	ok("Another_Valid_Name")
	ok("plan9")
	ok("username+cache")
	ok("*")
	ok("*-x")
	ok("a*b*c")
	ok(strings.Repeat("x", 50))
	bad("")
	bad("with space")
	bad("-leading")
	bad("_x")
	bad("+x")
	bad("ünicode")
	bad("a?b")
	bad("a/b")
	bad(strings.Repeat("x", 51))
}

func TestPatternMatches(t *testing.T) {
	f := func(pattern, name string, want bool) {
		t.Helper()
		if got := Pattern(pattern).Matches(name); got != want {
			t.Errorf("%q matches %q is %v, want %v", pattern, name, got, want)
		}
	}
	f("team-*", "team-", true)
	f("team-*", "team-abc", true)
	f("team-*", "abc-team", false)
	f("*", "anything", true)
	f("*", "", true)
	f("a*a", "a", false)
	f("a*a", "aa", true)
	f("*a*b*", "xxaxxbxx", true)
	f("*a*b*", "xxbxxaxx", false)
	f("plain", "plain", true)
	f("plain", "plains", false)
	f(strings.Repeat("*a", 25), strings.Repeat("a", 24)+strings.Repeat("b", 26), false) // no explosion
}

// Against a regular expression and by brute force over short words.
func TestPatternsAgainstOracle(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	word := func(alphabet string, most int) string {
		var b strings.Builder
		for range rnd.IntN(most + 1) {
			b.WriteByte(alphabet[rnd.IntN(len(alphabet))])
		}
		return b.String()
	}
	var names []string
	var grow func(string)
	grow = func(s string) {
		names = append(names, s)
		if len(s) < 6 {
			grow(s + "a")
			grow(s + "b")
		}
	}
	grow("")
	for range 3000 {
		p, q := Pattern(word("ab*", 5)), Pattern(word("ab*", 5))
		rp := regexp.MustCompile("^" + strings.ReplaceAll(string(p), "*", ".*") + "$")
		common, subset := false, true
		for _, n := range names {
			if p.Matches(n) != rp.MatchString(n) {
				t.Fatalf("%q matches %q is %v", p, n, p.Matches(n))
			}
			if q.Matches(n) {
				common = common || p.Matches(n)
				subset = subset && p.Matches(n)
			}
		}
		if common && !p.intersects(q) {
			t.Fatalf("%q and %q share a name, intersects says no", p, q)
		}
		if p.includes(q) && !subset {
			t.Fatalf("%q does not include %q, includes says yes", p, q)
		}
	}
}

func TestGrantOrder(t *testing.T) {
	pull, push := Permission{Pull: true}, Permission{Push: true}
	g := NewGrant("x", Rule{"all-*", pull}, Rule{"all-ci-*", push}, Rule{"all-ci-7", push})
	f := func(cache string, want Permission) {
		t.Helper()
		if got := g.Permission(cache); got != want {
			t.Errorf("%s: %v, want %v", cache, got, want)
		}
	}
	f("all-x", pull)
	f("all-ci-x", pull) // not push: the first match wins, they do not add up
	f("all-ci-7", push) // but the name itself beats every pattern
	f("other", Permission{})
	if g.Permission("other").CanDiscover() || !g.Permission("all-x").CanDiscover() {
		t.Error("discovery does not follow the rights")
	}
}

func TestGrantCovers(t *testing.T) {
	pull, both := Permission{Pull: true}, Permission{Pull: true, Push: true}
	f := func(pattern string, perm Permission, want bool, rules ...Rule) {
		t.Helper()
		if got := NewGrant("x", rules...).Covers(Pattern(pattern), perm); got != want {
			t.Errorf("%v covers %q %v is %v, want %v", rules, pattern, perm, got, want)
		}
	}
	f("a", pull, true, Rule{"*", both})
	f("*", both, true, Rule{"*", both})
	f("a-*", both, true, Rule{"a-*", both})
	f("a-b*", both, true, Rule{"a-*", both})
	f("a*", both, false, Rule{"a-*", both})
	f("*", pull, false, Rule{"a-*", both})
	f("*", Permission{}, true)
	f("a", pull, false)
	f("*", both, false, Rule{"a", pull}, Rule{"*", both})   // on "a" there is no push
	f("*", both, false, Rule{"*", both}, Rule{"a", pull})   // an exact name wins wherever it stands
	f("*", both, false, Rule{"a-*", pull}, Rule{"*", both}) // the narrower one comes first
	f("*", both, true, Rule{"*", both}, Rule{"a-*", pull})  // and here it is never reached
	f("b-*", both, true, Rule{"a-*", pull}, Rule{"*", both})
	f("*", pull, true, Rule{"a-*", pull}, Rule{"*", both})
}

// What Covers allows must never give a name more than the grant itself gives.
func TestGrantCoversIsSound(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	atoms := []string{"a", "b", "*", "a*", "*b", "a*b", "ab", "*a*", "ab*", "b*"}
	perms := []Permission{{Pull: true}, {Push: true}, {Pull: true, Push: true}, {}}
	names := []string{"a", "b", "ab", "ba", "aab", "abb", "aba", "bab", "bbb", "aaa", "abab"}
	yes := 0
	for range 20000 {
		var rules []Rule
		for range 1 + rnd.IntN(4) {
			rules = append(rules, Rule{Pattern(atoms[rnd.IntN(len(atoms))]), perms[rnd.IntN(len(perms))]})
		}
		g := NewGrant("x", rules...)
		pattern, perm := Pattern(atoms[rnd.IntN(len(atoms))]), perms[rnd.IntN(3)]
		if !g.Covers(pattern, perm) {
			continue
		}
		yes++
		for _, n := range names {
			if pattern.Matches(n) && !g.Permission(n).Covers(perm) {
				t.Fatalf("%v is said to cover %q %v, but gives %q only %v", rules, pattern, perm, n, g.Permission(n))
			}
		}
	}
	if yes < 1000 {
		t.Errorf("only %d cases were covered, the test tests little", yes)
	}
}

func TestPermissionNames(t *testing.T) {
	all := AllPermissions()
	back, err := ParsePermission(all.Names()...)
	if err != nil || back != all {
		t.Errorf("round trip: %v, %v", back, err)
	}
	if _, err := ParsePermission("pull", "fly"); err == nil || !strings.Contains(err.Error(), `"fly"`) {
		t.Errorf("unknown right: %v", err)
	}
}
