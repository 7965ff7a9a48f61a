//go:build !mutant

package httpapi

// Mutants breaks single rules of the delta protocol, so that simulations can prove that
// each is necessary. It has fields only in builds with the tag "mutant" (mutant_on.go
// lists them).
type Mutants struct{}

func (Mutants) anybodysReceipts() bool { return false }
func (Mutants) noStart() bool          { return false }
func (Mutants) noLinks() bool          { return false }
