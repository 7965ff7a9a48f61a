package wal

import (
	"context"
	"iter"
)

// KV is one row of the state.
type KV struct{ Key, Value []byte }

// View reads one state of the key-value map. The slices it hands out may be kept
// but not changed; keys that begin with '!' are bookkeeping and may or may not be
// seen.
type View interface {
	// Get returns the value of key, and false if there is none.
	Get(key []byte) (value []byte, ok bool, err error)

	// Scan yields, in bytewise order, the rows whose keys start with prefix and
	// sort strictly after after. A nil after begins at prefix. The iteration ends
	// after the first error.
	Scan(prefix, after []byte) iter.Seq2[KV, error]
}

// State is a replica's copy of the map that the log describes. One goroutine at
// a time calls it, but Get and Scan may be called by anybody at any time.
//
// What Apply has returned for need not survive a crash; what survives must be
// the state after some slot, with Position telling which. The log replays the rest.
type State interface {
	View

	// Position returns the last applied slot and the digest of its object, or
	// zeros if nothing has been applied.
	Position() (Seq, Digest, error)

	// Session returns the number of the last batch of w that was applied, and
	// false if the state does not know w.
	Session(w WriterID) (batch uint64, ok bool, err error)

	// Apply performs the entries of seg in order and then remembers seg.Seq,
	// digest, and seg.Batch as the session of seg.Writer, all in one step. Entries
	// of a kind other than Set, Delete and DeleteRange change nothing. An error
	// stops the replica for good: a segment that cannot be applied is never skipped.
	Apply(seg *Segment, digest Digest) error

	// Reset forgets everything and loads the snapshot that root names, so that
	// Position returns root.Snapshot.Seq and root.Snapshot.Digest. A State that
	// cannot load snapshots returns an error unless root.Snapshot.Seq is zero.
	Reset(ctx context.Context, root Root) error
}
