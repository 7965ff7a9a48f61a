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
}

func (m Mutants) noTouchCheck() bool  { return m.NoTouchCheck }
func (m Mutants) noTouches() bool     { return m.NoTouches }
func (m Mutants) noFence() bool       { return m.NoFence }
func (m Mutants) noChunkCheck() bool  { return m.NoChunkCheck }
func (m Mutants) noUploadFence() bool { return m.NoUploadFence }
func (m Mutants) noMoveCheck() bool   { return m.NoMoveCheck }
func (m Mutants) noPinCheck() bool    { return m.NoPinCheck }
