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
}

func (m Mutants) deleteBeforeFloor() bool { return m.DeleteBeforeFloor }
func (m Mutants) noEpochFence() bool      { return m.NoEpochFence }
func (m Mutants) lowestLevel() bool       { return m.LowestLevel }
func (m Mutants) dropTombstones() bool    { return m.DropTombstones }
func (m Mutants) noSessions() bool        { return m.NoSessions }
func (m Mutants) noBookmarks() bool       { return m.NoBookmarks }
