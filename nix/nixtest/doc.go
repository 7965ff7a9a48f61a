// Package nixtest makes store paths, NARs and signed narinfos for tests, and calls a real nix if there is one.
//
// Everything made is a function of the names and seeds given: two runs of a test
// see the same bytes. Only _test.go files and other test packages import it.
//
// # Concurrency
//
// Values are immutable once made. A [Nix] may be used by parallel tests: each
// call runs its own process.
package nixtest
