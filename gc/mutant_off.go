//go:build !mutant

package gc

// Mutants breaks single rules of collection, so that simulations can prove that each
// rule is necessary. It has fields only in builds with the tag "mutant".
type Mutants struct{}

func (Mutants) noTouchCheck() bool      { return false }
func (Mutants) noFence() bool           { return false }
func (Mutants) deleteBeforeGrace() bool { return false }
func (Mutants) sameKey() bool           { return false }
func (Mutants) condemnUnchecked() bool  { return false }
