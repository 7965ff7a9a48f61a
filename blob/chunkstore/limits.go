package chunkstore

import "github.com/celler/celler/blob/chunk"

// Limits are what whoever cuts and compresses for a Batch has to keep to.
type Limits struct {
	Profile      chunk.Profile
	FrameBytes   int // most plain bytes of a frame
	RestoreBytes int // of known chunks between new ones, below which they had better be sent again
	ProofKey     chunk.ProofKey
}

// Limits returns those of the store.
func (s *Store) Limits() Limits {
	return Limits{
		Profile:      s.o.Profile,
		FrameBytes:   max(s.o.FrameBytes, s.o.Profile.Max),
		RestoreBytes: max(s.o.RestoreBytes, 0),
		ProofKey:     s.o.ProofKey,
	}
}
