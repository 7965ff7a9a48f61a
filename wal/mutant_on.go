//go:build mutant

package wal

import (
	"context"
	"errors"
	"fmt"

	"github.com/celler/celler/blob"
)

// Mutants breaks single rules of the protocol, so that simulations can prove that
// each rule is necessary and that they would notice its loss.
type Mutants struct {
	// NoWriterCheck acknowledges a won create without reading ROOT again. A
	// stalled writer then acknowledges a phantom in a truncated slot. (I1)
	NoWriterCheck bool
	// NoReaderCheck applies segments without reading ROOT after them. A lagging
	// replica then takes phantoms for history, or a truncated slot for the tail. (I1)
	NoReaderCheck bool
	// LostOnExist takes "exists" for the proof that a peer won, although the
	// occupant may be our own earlier attempt: the batch is committed twice. (I4)
	LostOnExist bool
	// MissConcludes reads the slot after an unanswered create, and if there is
	// nothing tells the callers that nothing happened. The request may be late. (I4)
	MissConcludes bool
	// NoSessions decides by the segments that were seen, not by the session in the
	// state, whether a batch was applied. A truncated slot is not seen. (I4)
	NoSessions bool
	// NoPrevCheck ignores the digest of the previous segment. On a bucket that
	// lets two creates win, replicas diverge silently. (I5)
	NoPrevCheck bool
	// NoRevalidation sends the entries built for a lost slot to the next one. (I6)
	NoRevalidation bool
	// RenumberInDoubt encodes an unanswered batch again, under the next number,
	// so that it does not recognise its first attempt. (I4)
	RenumberInDoubt bool
	// SkipInDoubtSlot sends an unanswered batch to the slot after. (I3)
	SkipInDoubtSlot bool
	// JoinRunningCatchUp lets CatchUp join one that began before the call, which
	// may have read the tail already: misses are then not linearizable.
	JoinRunningCatchUp bool
	// NoRollbackCheck accepts a ROOT of an earlier revision. (I9)
	NoRollbackCheck bool
	// RejectWithoutProof answers a rejected or empty operation from the state at
	// hand, which may be behind.
	RejectWithoutProof bool
	// SeesOnlyStateBefore builds every operation of a batch against the state
	// before the batch, as if the others were not there. (I6)
	SeesOnlyStateBefore bool
	// NoLaneCheck commits what a peer has sent whatever number its lane has. What comes
	// twice is committed twice. (I4)
	NoLaneCheck bool
	// NoLaneVoid takes operations back without making the message void. It may be
	// committed after them. (I4)
	NoLaneVoid bool
	// LaneCheckedOnce looks at the number of a lane when a message is first built, and
	// not again after a lost slot. (I6)
	LaneCheckedOnce bool
	// HedgeAnew encodes a batch again, under the next number, when its create is sent a
	// second time. What the one is answered is then believed of the other. (I4)
	HedgeAnew bool
	// AnyAnswer takes the late answer to a create for that of the create under way,
	// which is for another slot. (I4)
	AnyAnswer bool
	// DraftUnchecked sends what was built ahead whatever became of the batch before. (I6)
	DraftUnchecked bool
}

func (m Mutants) noWriterCheck() bool       { return m.NoWriterCheck }
func (m Mutants) noReaderCheck() bool       { return m.NoReaderCheck }
func (m Mutants) lostOnExist() bool         { return m.LostOnExist }
func (m Mutants) noSessions() bool          { return m.NoSessions }
func (m Mutants) noPrevCheck() bool         { return m.NoPrevCheck }
func (m Mutants) noRevalidation() bool      { return m.NoRevalidation }
func (m Mutants) renumberInDoubt() bool     { return m.RenumberInDoubt }
func (m Mutants) skipInDoubtSlot() bool     { return m.SkipInDoubtSlot }
func (m Mutants) joinRunningCatchUp() bool  { return m.JoinRunningCatchUp }
func (m Mutants) noRollbackCheck() bool     { return m.NoRollbackCheck }
func (m Mutants) rejectWithoutProof() bool  { return m.RejectWithoutProof }
func (m Mutants) seesOnlyStateBefore() bool { return m.SeesOnlyStateBefore }
func (m Mutants) noLaneCheck() bool         { return m.NoLaneCheck }
func (m Mutants) noLaneVoid() bool          { return m.NoLaneVoid }
func (m Mutants) laneCheckedOnce() bool     { return m.LaneCheckedOnce }

func (m Mutants) draftUnchecked() bool { return m.DraftUnchecked }
func (m Mutants) anyAnswer() bool      { return m.AnyAnswer }

// mutateHedge returns what is sent when the create of a batch is sent again.
func (l *Log) mutateHedge(b *batch) []byte {
	if !l.o.Mutants.HedgeAnew || b.open() {
		return b.object
	}
	seg := *b.segment
	seg.Batch++
	object, err := l.codec.append(nil, &seg)
	if err != nil {
		return b.object
	}
	return object
}

// mutate does to a batch that has just failed what the protocol forbids, and
// reports whether its callers are to be left alone.
func (l *Log) mutate(ctx context.Context, b *batch) bool {
	if b.open() || b.won {
		return false
	}
	switch {
	case l.o.Mutants.MissConcludes:
		if r := l.readSlots(ctx, b.seq, 1)[0]; errors.Is(r.err, blob.ErrNotExist) {
			l.pending = nil
			l.answer(b.calls, 0, fmt.Errorf("%w: %w", ErrConflict, b.cause))
			return true
		}
	case l.o.Mutants.RenumberInDoubt:
		b.number++
		return l.seal(b) == nil
	case l.o.Mutants.SkipInDoubtSlot:
		b.seq++
		seg := *b.segment
		seg.Seq = b.seq
		b.segment = &seg
		var err error
		if b.object, err = l.codec.append(nil, &seg); err == nil {
			b.digest = DigestOf(b.object)
		}
		return err == nil
	}
	return false
}
