// Package compact folds segments into snapshot tables, installs them in ROOT, and truncates the log below the floor.
//
// A [Compactor] performs rounds. Each round does what is due and leaves the bucket
// sound wherever it is broken off:
//
//	flush     slots after the snapshot ─► one run a shard ─► snapshot ─► ROOT
//	merge     runs of about one size   ─► one run         ─► snapshot ─► ROOT
//	truncate  ROOT's floor up          ─► slots below it deleted
//	sweep     old snapshots deleted    ─► tables that nothing refers to deleted
//
// It is blind to meaning. Segments hold effects, so the last one of a key is all that
// a flush needs to know, and a merge is a sorted merge in which the newer run wins.
// A snapshot can therefore be proven equal to a replay of the log, and is, in tests.
//
// # Runs and shards
//
// The key space is cut into fixed shards (wal.Shard). A run is what a stretch of the
// log did to one shard; a snapshot is a stack of runs for each shard. Merging is
// size-tiered within a shard, so that a round costs what has changed and not what
// there is: each entry is rewritten about once for each factor of Options.Ratio
// between a flush and the whole. Deletions are dropped when the oldest run is part
// of a merge, because nothing is left for them to delete.
//
// # Tables
//
// Tables are Pebble sstables in the row format v4 with zstd blocks, which an index
// ingests as they are. They are written with the options of level 0, always. With
// those of the lowest level Pebble marks tombstones as obsolete, and ignores them
// once the table is ingested; a test keeps that trap in view.
//
// Each table carries a content sum (wal.Sum) over its entries. What a flush wrote is
// read back, as an index would read it, and must have the sum of what it was given;
// a merge reads its inputs to the end, and what came out plus what was dropped must
// be what went in. Only then is anything installed.
//
// # Bookmarks
//
// The floor does not rise past what a bookmark needs, and sweeps leave it. That is
// little: flushes end at bookmarks, so that each has a snapshot of its own slot and
// needs no log, and for one that was set on the past a snapshot is made aside. ROOT has the
// bookmarks; a swap that raises the floor gives up if they have changed since it was
// decided on. So does the swap by which a sweep has ROOT name the snapshots that it is
// about to delete: what is named there counts as gone, and no bookmark is set on it.
// Beside bookmarks, the snapshot is kept that the oldest slots of the log follow on.
//
// ROOT is read before the object of a snapshot is written, after the slots it is made
// of. So each snapshot in a bucket is true, though not each was installed; one that was
// not may lack tables.
//
// # Epochs
//
// A round that writes claims a compaction epoch: one swap of ROOT. Its tables are
// named by it, and it may install for as long as nobody has claimed a later one.
// Nothing is locked, nobody waits for anybody: a compactor that slept is fenced when
// it wakes up and tries to install ([FencedError]). Tables of earlier epochs that no
// kept snapshot refers to are garbage, however young they are.
//
// # Concurrency
//
// A Compactor is used by one goroutine at a time. Any number of Compactors may work
// on one bucket.
package compact
