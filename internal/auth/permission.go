package auth

import "strings"

// Permission is what a caller may do with one cache.
type Permission struct {
	Pull               bool // "r": read narinfos, NARs and the cache's configuration
	Push               bool // "w": upload store paths
	Delete             bool // "d": withdraw store paths
	CreateCache        bool // "cc"
	ConfigureCache     bool // "cr"
	ConfigureRetention bool // "cq": needed beside ConfigureCache to change retention
	DestroyCache       bool // "cd"
	Pin                bool // "pin": add, move and remove pins; celler's own, others skip it
}

// AllPermissions has every right.
func AllPermissions() Permission {
	return Permission{
		Pull: true, Push: true, Delete: true,
		CreateCache: true, ConfigureCache: true, ConfigureRetention: true, DestroyCache: true,
		Pin: true,
	}
}

// CanDiscover reports whether the caller may learn that the cache exists, which
// is so as soon as one right on its name was given. Who may not discover a cache is told
// 401 whether it exists or not.
func (p Permission) CanDiscover() bool { return p != Permission{} }

// Covers reports whether every right in q is also in p.
func (p Permission) Covers(q Permission) bool {
	for _, b := range permissionBits {
		if *b.of(&q) && !*b.of(&p) {
			return false
		}
	}
	return true
}

// Names lists the rights that are set, in the order of the token's letters:
// "pull", "push", "delete", "create-cache", "configure-cache", "configure-cache-retention", "destroy-cache", "pin".
func (p Permission) Names() []string {
	var names []string
	for _, b := range permissionBits {
		if *b.of(&p) {
			names = append(names, b.name)
		}
	}
	return names
}

// ParsePermission is the inverse of [Permission.Names].
func ParsePermission(names ...string) (Permission, error) {
	var p Permission
next:
	for _, name := range names {
		for _, b := range permissionBits {
			if b.name == name {
				*b.of(&p) = true
				continue next
			}
		}
		return Permission{}, &PermissionNameError{Name: name}
	}
	return p, nil
}

// PermissionNameError reports a word that names no right.
type PermissionNameError struct{ Name string }

func (e *PermissionNameError) Error() string {
	var known []string
	for _, b := range permissionBits {
		known = append(known, b.name)
	}
	return "parse permission " + quote(e.Name) + ": expected one of " + strings.Join(known, ", ")
}

func (p Permission) String() string {
	names := p.Names()
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

// permissionBits is the one table of rights: claim letter, word, field. It is
// never written.
//
//nolint:gochecknoglobals // a constant table
var permissionBits = [...]struct {
	claim string
	name  string
	of    func(*Permission) *bool
}{
	{"r", "pull", func(p *Permission) *bool { return &p.Pull }},
	{"w", "push", func(p *Permission) *bool { return &p.Push }},
	{"d", "delete", func(p *Permission) *bool { return &p.Delete }},
	{"cc", "create-cache", func(p *Permission) *bool { return &p.CreateCache }},
	{"cr", "configure-cache", func(p *Permission) *bool { return &p.ConfigureCache }},
	{"cq", "configure-cache-retention", func(p *Permission) *bool { return &p.ConfigureRetention }},
	{"cd", "destroy-cache", func(p *Permission) *bool { return &p.DestroyCache }},
	{"pin", "pin", func(p *Permission) *bool { return &p.Pin }},
}
