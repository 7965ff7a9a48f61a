// Package wal is the only source of truth: a totally ordered log of key-value
// effects, one immutable object per slot, plus ROOT, the one object that changes.
//
// Most callers need two functions: [Open], which makes a [State] a copy of the log
// and keeps it one, and [Log.Commit], which returns once an operation owns a slot
// or cannot have one. [Log.CatchUp] is for whoever is about to say "no": afterwards
// the state has everything that anybody was acknowledged before the call.
//
// The log knows nothing of Nix. A segment holds effects ("set this key to that
// value"), worked out against the state just before it, and never intents, so that
// programs of different versions apply it alike and a snapshot is a sorted merge.
//
// # Objects
//
//	FORMAT                     written once, last, when the bucket is founded
//	ROOT                       snapshot, floor, epochs, who may read and write
//	log/<slot: 16 hex digits>  a segment; slots are dense and start at 1
//	snap/<slot>.<random>       a snapshot: the whole state after that slot ([Snapshot])
//	tab/<epoch>/<random>.sst   a table of a snapshot
//	bookmark/<name>            when and by whom a slot was marked ([Bookmark]); ROOT says which
//
// There is no manifest on the way of a commit. Creating log/<n> if it is absent is
// the commit, and at the same time a compare-and-swap of the whole state: whoever
// wins slot n has applied all of n-1, so what its operations were checked against
// still holds.
//
// # Outcomes
//
// Commit returns nil only after the segment was created in its slot and ROOT was
// read again (I1, I3). Otherwise: [ErrUnknown], it may have happened; any other
// error, it has not. There is no third case and no other promise.
//
// # Invariants
//
// They are cited by number in the code and in the tests.
//
//	I1   Nothing read from a slot below the floor becomes part of a state, and no
//	     commit in such a slot is acknowledged. Deleted slots can be created again
//	     by a writer that slept (a phantom), so ROOT is read after every won create
//	     and after the last slot of every catch-up, and nothing is done in between.
//	I2   The floor is raised before any slot below it is deleted.
//	I3   Slot n+1 is not attempted before slot n is applied and checked. A batch
//	     built on a phantom would carry a digest that poisons the log.
//	I4   A batch in doubt goes to no other slot, and is not encoded anew, unless the
//	     state after a catch-up shows that it was not applied. An unanswered create
//	     may be performed later; only an occupied slot is final. The state remembers
//	     the last batch of each writer (its session) because a slot may be truncated
//	     before its writer could read it back.
//	I5   The state after slot n is a function of segments 1 to n. Each segment holds
//	     the digest of the one before, which shows when a bucket let two writers win
//	     one slot: the replica stops and says so.
//	I6   What an operation was checked against is the state after n-1, including the
//	     earlier operations of its batch; after a lost slot it is checked again. So
//	     every key a segment relies on was live.
//	I7   The name of an object is never used for two contents, slots below the floor
//	     excepted.
//	I8   An object is deleted only if no state that can still be reached, and no
//	     commit that can still be made, refers to it.
//	I9   ROOT's revision, snapshot, floor, epochs and gates never go back
//	     (CheckTransition). A replica that sees them go back stops.
//	I10  Listings and clocks decide nothing of the above. Time decides when to try,
//	     to wait, and to tell a caller that the outcome is unknown.
//
// # Sessions
//
// A writer is a random id and its batches are numbered. The first is empty: it opens
// the session, so that a session missing from the state can only mean that it was
// dropped, never that the first batch is still to come. A writer whose session is
// gone cannot tell what became of a batch in doubt. It is fenced: its callers learn
// that the outcome is unknown, and it goes on under a new id.
//
// # Segment format
//
// Numbers are big-endian. The object has no bytes after the trailer.
//
//	offset  size
//	0       4     magic "CLS1"
//	4       2     format version, 1
//	6       2     flags: bit 0 the body is one zstd frame; bit 1 reserved (sealed)
//	8       16    store id
//	24      8     slot
//	32      32    SHA-256 of the whole object in the slot before; zeros in slot 1
//	64      16    writer id
//	80      8     batch number
//	88      8     milliseconds since 1970, by the writer's clock; information only
//	96      4     length of the plain body, at most 16 MiB
//	100     4     length of the body as stored
//	104     4     CRC-32C of bytes 0 to 103
//	108     …     body
//	end-32  32    SHA-256 of everything before it
//
//	plain body:  count (uvarint), then as many entries
//	entry:       kind (1 byte), length of key (uvarint), key,
//	             length of value (uvarint), value
//
// A reader ignores entries of an unknown kind from 128 on, and stops with a
// [TooNewError] at an unknown kind below, an unknown version or an unknown flag.
//
// # ROOT
//
// One JSON object of at most 16 KiB; the fields are those of [Root]. It is changed by
// swap only ([RootChange.Swap]), rev grows by one and nonce is new each time, so that
// no two versions have the same bytes. Readers ask for it with the tag they know and
// are mostly told that it is unchanged: an idle poll is two requests, a commit is a
// create and such a question.
//
// # Broken variants
//
// Each rule can be switched off in builds with the tag "mutant" (see [Mutants]), and
// wal/model holds Promela models of the protocol with the verdict for each rule left out.
//
// # Why not…
//
//   - a lock or a lease: a holder that sleeps does not know that it lost it, so
//     everything written under it needs a check like I1 anyway.
//   - a segment first and a pointer to it second: a crash between the two leaves a
//     slot that nobody may use and nobody may skip.
//   - a lane per writer: only with one log does winning a slot prove that nobody
//     committed anything the winner has not seen.
//   - the next slot before ROOT was read for this one: see I3.
//
// # Concurrency
//
// A Log may be used by many goroutines. One goroutine, the sequencer, is started by
// Open and awaited by Close; it alone changes the state, and sends every request to the
// bucket or starts the goroutine that does. While it waits for an answer it builds the
// next batch (draft.go), and a request that is late is sent again (hedge.go). The
// only lock, Log.mu, guards the queues between it and everybody else and is never held
// during I/O.
package wal
