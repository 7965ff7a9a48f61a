//go:build mutant

package compact

// Mutants breaks single rules of compaction, so that simulations can prove that
// each rule is necessary and that they would notice its loss.
type Mutants struct {
	// DeleteBeforeFloor deletes slots before ROOT says that they may not be read. (I2)
	DeleteBeforeFloor bool
	// NoEpochFence installs whatever was written, though a later epoch was claimed
	// and its tables may have been swept. (I8)
	NoEpochFence bool
	// LowestLevel writes tables as Pebble writes those of its lowest level, which
	// hides most tombstones once they are ingested, and does not read them back.
	LowestLevel bool
	// DropTombstones drops tombstones from merges that leave out the oldest run.
	DropTombstones bool
	// NoSessions leaves the log's sessions out of snapshots. (I4)
	NoSessions bool
	// NoBookmarks folds and deletes as if there were no bookmarks.
	NoBookmarks bool
	// NoMarkCheck raises the floor, and deletes snapshots, although bookmarks have been
	// set since it looked.
	NoMarkCheck bool
	// NoDoom deletes snapshots of which ROOT does not say so, after a look at the
	// bookmarks.
	NoDoom bool
	// NoReadCheck writes snapshots of slots that may have been truncated, and written by
	// somebody else, before they were read. (I1)
	NoReadCheck bool
	// SweepAll deletes tables that no snapshot names although who wrote them may still
	// install them. (I8)
	SweepAll bool
}

func (m Mutants) deleteBeforeFloor() bool { return m.DeleteBeforeFloor }
func (m Mutants) noEpochFence() bool      { return m.NoEpochFence }
func (m Mutants) lowestLevel() bool       { return m.LowestLevel }
func (m Mutants) dropTombstones() bool    { return m.DropTombstones }
func (m Mutants) noSessions() bool        { return m.NoSessions }
func (m Mutants) noBookmarks() bool       { return m.NoBookmarks }
func (m Mutants) noMarkCheck() bool       { return m.NoMarkCheck }
func (m Mutants) noDoom() bool            { return m.NoDoom }
func (m Mutants) noReadCheck() bool       { return m.NoReadCheck }
func (m Mutants) sweepAll() bool          { return m.SweepAll }
