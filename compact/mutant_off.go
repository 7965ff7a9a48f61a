//go:build !mutant

package compact

// Mutants breaks single rules of compaction, so that simulations can prove that
// each rule is necessary. It has fields only in builds with the tag "mutant".
type Mutants struct{}

func (Mutants) deleteBeforeFloor() bool { return false }
func (Mutants) noEpochFence() bool      { return false }
func (Mutants) lowestLevel() bool       { return false }
func (Mutants) dropTombstones() bool    { return false }
func (Mutants) noSessions() bool        { return false }
func (Mutants) noBookmarks() bool       { return false }
func (Mutants) noMarkCheck() bool       { return false }
func (Mutants) noDoom() bool            { return false }
func (Mutants) noReadCheck() bool       { return false }
func (Mutants) sweepAll() bool          { return false }
