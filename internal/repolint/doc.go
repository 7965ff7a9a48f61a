// Package repolint holds the repository's own rules as tests.
//
// Nothing imports it and nothing is in it but tables: what each package is for
// ([Charters]) and what it may import ([Allowed]). The tests read the tree and
// the output of go list, and every failure says what to do about it.
//
// A rule belongs here when a reviewer would otherwise have to remember it. A rule
// about one line of code that a general linter knows belongs to .golangci.yml.
package repolint
