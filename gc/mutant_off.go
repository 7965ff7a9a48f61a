//go:build !mutant

package gc

// Mutants breaks single rules of collection, so that tests and simulations can prove
// that each rule is necessary. It has fields only in builds with the tag "mutant".
type Mutants struct{}

func (Mutants) deleteBeforeGrace() bool { return false }
func (Mutants) sweepEarly() bool        { return false }
func (Mutants) ignoreGrace() bool       { return false }
func (Mutants) noPins() bool            { return false }
func (Mutants) noReferences() bool      { return false }
func (Mutants) noBookmarks() bool       { return false }
