package auth

import "time"

// Rule gives a permission on the caches a pattern selects.
type Rule struct {
	Pattern    Pattern
	Permission Permission
}

// Grant is what a caller may do. The zero value is the anonymous caller, who may do
// nothing that is not open to all. A Grant must not be modified.
type Grant struct {
	Subject string    // "sub" of the token, "" if none
	ID      string    // "jti" of the token, "" if none
	Expires time.Time // zero: never
	Rules   []Rule    // in the token's order, which decides between patterns

	// Rejected says why credentials were presented and not believed; nil if they were
	// believed or there were none.
	Rejected error

	authenticated bool
}

// NewGrant makes a Grant that holds rules, for callers inside this process.
func NewGrant(subject string, rules ...Rule) Grant {
	return Grant{Subject: subject, Rules: rules, authenticated: true}
}

// Anonymous reports whether the caller presented no credentials that were believed.
func (g Grant) Anonymous() bool { return !g.authenticated }

// Permission returns what the token gives on one cache: the rule that spells the
// name itself, else the first rule in order whose pattern matches. Rules do not
// add up. What a public cache gives to everybody is not in it.
func (g Grant) Permission(cache string) Permission {
	for _, r := range g.Rules {
		if string(r.Pattern) == cache {
			return r.Permission
		}
	}
	for _, r := range g.Rules {
		if r.Pattern.Matches(cache) {
			return r.Permission
		}
	}
	return Permission{}
}

// Covers reports whether g gives at least perm on every cache name that pattern
// selects. It errs on the side of no.
func (g Grant) Covers(pattern Pattern, perm Permission) bool {
	if perm == (Permission{}) {
		return true
	}
	if pattern.literal() {
		return g.Permission(string(pattern)).Covers(perm)
	}
	for _, r := range g.Rules {
		// A rule that spells a name wins for that name wherever it stands.
		if r.Pattern.literal() && pattern.Matches(string(r.Pattern)) && !r.Permission.Covers(perm) {
			return false
		}
	}
	for _, r := range g.Rules {
		if !r.Pattern.intersects(pattern) {
			continue
		}
		if !r.Permission.Covers(perm) {
			return false
		}
		if r.Pattern.includes(pattern) {
			return true
		}
	}
	return false
}
