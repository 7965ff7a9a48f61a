//go:build !mutant

package catalog

// Mutants breaks single rules of collection and publishing, so that simulations can
// prove that each is necessary and that they would notice its loss. It has fields only
// in builds with the tag "mutant" (mutant_on.go lists them).
type Mutants struct{}

func (Mutants) noTouchCheck() bool  { return false }
func (Mutants) noTouches() bool     { return false }
func (Mutants) noFence() bool       { return false }
func (Mutants) noChunkCheck() bool  { return false }
func (Mutants) noUploadFence() bool { return false }
func (Mutants) noMoveCheck() bool   { return false }
func (Mutants) noPinCheck() bool    { return false }
