// Package index is a disposable Pebble copy of the log's state: bootstrapped from a snapshot, advanced by apply, never written otherwise.
//
// A [DB] is the [wal.State] of one node. The log applies segments to it, everybody
// reads from it, and no read ever goes to the bucket.
//
// # What survives
//
// A segment is applied as one Pebble batch: its entries, and the rows below. There
// is no write-ahead log, because the bucket holds one already: after a crash the
// state is that of some slot that was applied earlier, says which in "!seq", and
// the log applies the rest again. How much that is, is bounded by flushing every
// few hundred segments, and by flushing in Close.
//
// # What is thrown away
//
// A copy that cannot be used is never repaired. If the directory is empty, or
// holds something that Pebble cannot open, the index of another bucket, or one
// made by a newer celler, it is moved aside, an empty one is begun, and the log
// fills it. One earlier copy is kept for a look at it. Damage that shows itself
// only later, in a block that is read, makes reads fail with a [CorruptError] and
// leaves a note, so that the next Open begins anew.
//
// # Snapshots
//
// A copy that is far behind, or below the floor of the log, loads the newest
// snapshot: its tables are fetched, verified, synced and ingested into new files, the
// oldest run of every shard first, while reads go on from the old ones. Then LIVE
// names the new files, new reads go there, and the last read of the old ones removes
// them. Tables that were fetched before a crash are not fetched again.
//
// # The past
//
// [OpenPast] makes the state as it was after an earlier slot, in a directory of its own
// that goes when it is closed, or with the next call if the process is killed. It is
// made of the newest snapshot that leads there and the log, through a view of the bucket
// that ends at the slot (wal.Past).
//
// # In the directory
//
//	LOCK       held by the process that has the directory open
//	db/        Pebble's files, until a snapshot is loaded
//	db.<n>/    Pebble's files of the n-th snapshot loaded
//	LIVE       which of these directories is the index; db if there is no such file
//	fetch/     tables of a snapshot on their way in
//	db.aside/  the copy that was given up last
//	past-…/    beside it, not in it: states of the past, each like an index
//	REBUILD    why db/ must not be used again, as text
//
// # Bookkeeping rows
//
//	!store             format of the index, 8 B  store id, 16 B
//	!seq               last applied slot, 8 B
//	!digest            digest of its object, 32 B
//	!session/<writer>  its last batch, 8 B  in which slot, 8 B  at what time, unix milliseconds, 8 B
//
// Numbers are big-endian. No segment may touch these rows, but for deleting a
// session.
//
// # Concurrency
//
// Reads may come from many goroutines at any time between Open and Close. Apply
// and Reset are called by one goroutine at a time; a read sees a whole segment or
// nothing of it.
package index
