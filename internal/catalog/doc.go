// Package catalog gives the log meaning: it turns operations on caches, paths and pins into effects, commits them, and answers reads from the index.
//
// Whoever wants to know something about a cache or a path asks here; whoever
// wants to change something says so here. Nobody else commits to the log, and
// nobody but this package and the index knows how rows are keyed.
//
// # Writing
//
// Every change is one or more operations of the log. What an operation checks, it
// checks in its Build function, against the state just before its slot, because
// only that state is sure to be the one it changes (I6): that the cache exists,
// that the chunks a recipe names have not been condemned since the chunk store
// looked, that a new pack was uploaded during this upload epoch or the last. A
// check made earlier is a courtesy that saves a slot.
//
// A change that is too large for one operation is cut so that each prefix of it
// is harmless: packs before the recipe that names them, the parts of a recipe
// before its head, the head together with the path row that needs it. A crash in
// the middle leaves rows that nothing refers to.
//
// # Reading
//
// Reads come from the index. What is there is at most Options.MaxStaleness of
// the log old. What is not there is asked for again after a catch-up that began
// after the question, so that a path which any node has acknowledged is never
// denied by another. What is listed, and what is missing, is looked up after such a
// catch-up in any case: [Catalog.Caches], [Catalog.Paths], [Catalog.MissingPaths].
//
// # Counting
//
// How many paths name a NAR, what a cache and the store hold, what came and went on a
// day, when a path was last used: all that is kept by the operations that change it, in
// the same entries (books), so that statistics are exact and cost nothing to read, and
// a NAR that no path names is known without looking for paths. A recount compares and
// puts right what an earlier celler never counted; until then nothing is collected.
//
// # Store days
//
// No decision to remove anything reads a local clock. Uses, withdrawals and burials are
// noted by store day, which is a number. A day ends when a [Catalog.Tick] says so, and when
// that was is told by the bucket, which knows when it stored the slot; see [Clock].
// Whatever happens between the two makes things live longer.
//
// # Collecting
//
// A collector takes a [Mark], looks at the state as it was (Snapshot) for as long as it
// likes, and then removes what it found dead, in this order:
//
//	paths that nothing keeps   Mark.Expire           their NARs become unreferenced
//	recipes of such NARs       Mark.RemoveRecipes    after the grace for those who know the URL
//	chunks no recipe names     Mark.Condemn          nothing can refer to them any more
//	objects without life       Forget                after the grace for readers, and deletion
//
// It cannot race a push, however long it sleeps in between, because each of these is
// checked by its Build against the state that it changes. While a mark is running,
// what brings a path to life leaves a touch, as does a recipe that is written; an operation
// that removes something looks at the touches that its collector has not yet seen, and
// spares what they lead to. A later mark fences an earlier one.
//
// Chunks are condemned by their place, so that what is dead is an exact question for a
// push that names places, and the row of a chunk that names a dead place counts for
// nothing. The next push that brings such a chunk along writes the row anew; damage is
// repaired in the same way (MarkDamaged).
//
// Recipes and chunk rows go on naming a pack when its frames are moved into another
// object; only the row of the pack changes (MovePacks), if it is still what was read and
// nothing is left behind that lives.
//
// # Destroying a cache
//
// Path rows are keyed by the number of their cache, not its name. Destroying a
// cache removes its own row and leaves a marker; from that slot on its paths
// are unreachable, also for a new cache of the same name, and out of the totals of the
// store. The rows themselves are removed in bounded operations, by the caller or, after a
// crash, by whoever calls [Catalog.Sweep] or destroys a cache next; as they go, NARs
// become unreferenced. A cache that is restored goes the other way: its rows are written
// under a new number and a marker that says so, and its own row comes last.
//
// # Restoring
//
// [Catalog.Restore] brings caches to what they were as a difference: rows to be set and
// removed, each with what it must be now, so that the operation fails instead of
// undoing what it has not seen. A cache that is too much for one operation is built
// aside ([Rebuild]) under a number that no name leads to, and shown by that operation.
// Paths whose NAR cannot be put together are left out and named.
//
// # Signatures
//
// A path is signed with the key of its cache when it is published, and the row
// remembers by which key. If the key of the cache changes, rows keep the old
// signature and are signed again when they are read, which a bounded memo makes
// cheap; no operation ever rewrites a million rows.
//
// # Concurrency
//
// A Catalog may be used by many goroutines. Build functions run on the log's
// sequencer, one at a time. The locks of the keyring, the signature memo and the
// carriers of packs are never held together, nor during I/O.
package catalog
