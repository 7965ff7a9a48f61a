//go:build mutant

package httpapi

// Mutants breaks single rules of the delta protocol, so that simulations can prove that
// each is necessary and that they would notice its loss.
type Mutants struct {
	// AnybodysReceipts takes receipts that were given for another cache or to somebody else.
	AnybodysReceipts bool
	// NoStart takes a chain of receipts that begins in the middle of a NAR.
	NoStart bool
	// NoLinks takes receipts for a chain although one does not begin where that before it
	// ends.
	NoLinks bool
}

func (m Mutants) anybodysReceipts() bool { return m.AnybodysReceipts }
func (m Mutants) noStart() bool          { return m.NoStart }
func (m Mutants) noLinks() bool          { return m.NoLinks }
