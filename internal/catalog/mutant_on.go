//go:build mutant

package catalog

// Mutants breaks single rules of collection and publishing, so that simulations can
// prove that each is necessary and that they would notice its loss.
type Mutants struct {
	// NoTouchCheck lets a collector remove what came to life since it looked.
	NoTouchCheck bool
	// NoTouches publishes, pins and uses without leaving a touch.
	NoTouches bool
	// NoFence lets a collector go on after another has begun, whose touches it does
	// not see.
	NoFence bool
	// NoChunkCheck publishes recipes without looking whether what they name has been
	// condemned since the writer looked.
	NoChunkCheck bool
	// NoUploadFence lets packs become part of the state however long ago their upload
	// began, when a sweep may have taken them for orphans.
	NoUploadFence bool
	// NoMoveCheck moves a pack although its row is not what it was when it was copied.
	NoMoveCheck bool
	// NoPinCheck lets a collector remove what is pinned if it does not see itself that
	// it is.
	NoPinCheck bool
	// NoSoundCheck restores paths whose NARs cannot be put together any more.
	NoSoundCheck bool
	// NoDiffCheck restores although the rows it was worked out from have changed. (I6)
	NoDiffCheck bool
	// NoMomentCheck restores although paths have gone, or pins were changed, that the
	// difference does not name. (I6)
	NoMomentCheck bool
	// NoStaleCheck withdraws paths that have come to be needed since they were chosen. (I6)
	NoStaleCheck bool
	// NoPurgeFence takes what was purged for done although a later collection has begun, whose
	// removals the one that looked does not know.
	NoPurgeFence bool
	// NoHoleCheck takes what was purged for done although what is dead is still in the
	// bucket.
	NoHoleCheck bool
	// NoMoveFence moves packs into an object however long ago its upload began, when a sweep
	// may have taken it for an orphan. (I8)
	NoMoveFence bool
	// NoRecipeCheck removes recipes of NARs that paths have come to name since. (I6)
	NoRecipeCheck bool
	// NoSideCheck removes what is kept beside paths though its path has come since. (I6)
	NoSideCheck bool
	// NoRebuildFence goes on putting a cache together aside whose rows are being swept.
	NoRebuildFence bool
	// NoProofs takes it for known that somebody has a chunk who can only name it.
	NoProofs bool
	// NoRecountFence lets two recounts put the same right.
	NoRecountFence bool
}

func (m Mutants) noTouchCheck() bool   { return m.NoTouchCheck }
func (m Mutants) noTouches() bool      { return m.NoTouches }
func (m Mutants) noFence() bool        { return m.NoFence }
func (m Mutants) noChunkCheck() bool   { return m.NoChunkCheck }
func (m Mutants) noUploadFence() bool  { return m.NoUploadFence }
func (m Mutants) noMoveCheck() bool    { return m.NoMoveCheck }
func (m Mutants) noPinCheck() bool     { return m.NoPinCheck }
func (m Mutants) noSoundCheck() bool   { return m.NoSoundCheck }
func (m Mutants) noDiffCheck() bool    { return m.NoDiffCheck }
func (m Mutants) noMomentCheck() bool  { return m.NoMomentCheck }
func (m Mutants) noStaleCheck() bool   { return m.NoStaleCheck }
func (m Mutants) noPurgeFence() bool   { return m.NoPurgeFence }
func (m Mutants) noMoveFence() bool    { return m.NoMoveFence }
func (m Mutants) noRecipeCheck() bool  { return m.NoRecipeCheck }
func (m Mutants) noSideCheck() bool    { return m.NoSideCheck }
func (m Mutants) noRebuildFence() bool { return m.NoRebuildFence }
func (m Mutants) noProofs() bool       { return m.NoProofs }
func (m Mutants) noRecountFence() bool { return m.NoRecountFence }
func (m Mutants) noHoleCheck() bool    { return m.NoHoleCheck }
