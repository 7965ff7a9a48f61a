//go:build !mutant

package wal

// Mutants is empty: this build has no broken variants.
type Mutants struct{}
