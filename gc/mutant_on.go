//go:build mutant

package gc

// Mutants breaks single rules of collection, so that tests and simulations can prove
// that each rule is necessary and that they would notice its loss. Rules that operations
// of the log hold (touches, the fence) are broken in package catalog.
type Mutants struct {
	// DeleteBeforeGrace deletes objects as soon as nothing in the state needs them,
	// though readers may. (I8)
	DeleteBeforeGrace bool
	// SweepEarly takes what the state does not know for an orphan although its upload
	// epoch is not over, so that somebody may be about to commit it. (I8)
	SweepEarly bool
	// IgnoreGrace removes the NARs of paths that have just left.
	IgnoreGrace bool
	// NoPins expires what pins keep.
	NoPins bool
	// NoReferences expires what was not used itself, though something refers to it.
	NoReferences bool
	// NoBookmarks removes NARs that bookmarks need.
	NoBookmarks bool
}

func (m Mutants) deleteBeforeGrace() bool { return m.DeleteBeforeGrace }
func (m Mutants) sweepEarly() bool        { return m.SweepEarly }
func (m Mutants) ignoreGrace() bool       { return m.IgnoreGrace }
func (m Mutants) noPins() bool            { return m.NoPins }
func (m Mutants) noReferences() bool      { return m.NoReferences }
func (m Mutants) noBookmarks() bool       { return m.NoBookmarks }
