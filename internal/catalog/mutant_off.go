//go:build !mutant

package catalog

// Mutants breaks single rules of collection and publishing, so that simulations can
// prove that each is necessary and that they would notice its loss. It has fields only
// in builds with the tag "mutant" (mutant_on.go lists them).
type Mutants struct{}

func (Mutants) noTouchCheck() bool   { return false }
func (Mutants) noTouches() bool      { return false }
func (Mutants) noFence() bool        { return false }
func (Mutants) noChunkCheck() bool   { return false }
func (Mutants) noUploadFence() bool  { return false }
func (Mutants) noMoveCheck() bool    { return false }
func (Mutants) noPinCheck() bool     { return false }
func (Mutants) noSoundCheck() bool   { return false }
func (Mutants) noDiffCheck() bool    { return false }
func (Mutants) noMomentCheck() bool  { return false }
func (Mutants) noStaleCheck() bool   { return false }
func (Mutants) noPurgeFence() bool   { return false }
func (Mutants) noMoveFence() bool    { return false }
func (Mutants) noRecipeCheck() bool  { return false }
func (Mutants) noSideCheck() bool    { return false }
func (Mutants) noRebuildFence() bool { return false }
func (Mutants) noProofs() bool       { return false }
func (Mutants) noRecountFence() bool { return false }
func (Mutants) noHoleCheck() bool    { return false }
