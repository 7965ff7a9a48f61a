//go:build !mutant

package wal

import "context"

// Mutants breaks single rules of the protocol, so that simulations can prove that
// each rule is necessary and that they would notice its loss. It has fields only
// in builds with the tag "mutant" (mutant_on.go lists them); in this build it is
// empty, its methods are constants, and the compiler removes what they guard.
type Mutants struct{}

func (Mutants) noWriterCheck() bool       { return false }
func (Mutants) noReaderCheck() bool       { return false }
func (Mutants) lostOnExist() bool         { return false }
func (Mutants) noSessions() bool          { return false }
func (Mutants) noPrevCheck() bool         { return false }
func (Mutants) noRevalidation() bool      { return false }
func (Mutants) renumberInDoubt() bool     { return false }
func (Mutants) skipInDoubtSlot() bool     { return false }
func (Mutants) joinRunningCatchUp() bool  { return false }
func (Mutants) noRollbackCheck() bool     { return false }
func (Mutants) rejectWithoutProof() bool  { return false }
func (Mutants) seesOnlyStateBefore() bool { return false }
func (Mutants) noLaneCheck() bool         { return false }
func (Mutants) noLaneVoid() bool          { return false }
func (Mutants) laneCheckedOnce() bool     { return false }

func (Mutants) draftUnchecked() bool { return false }
func (Mutants) anyAnswer() bool      { return false }

func (l *Log) mutateHedge(b *batch) []byte { return b.object }

func (l *Log) mutate(context.Context, *batch) bool { return false }
