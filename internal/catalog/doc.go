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
// # Destroying a cache
//
// Path rows are keyed by the number of their cache, not its name. Destroying a
// cache removes its own row and leaves a marker; from that slot on its paths
// are unreachable, also for a new cache of the same name. The rows themselves are
// removed in bounded operations, by the caller or, after a crash, by whoever calls
// [Catalog.Sweep] or destroys a cache next.
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
