// Package gc decides which paths and chunks are dead under pins and retention, explains why, and removes them in that order.
//
// A [Collector] performs rounds. Each does what is due and leaves the store sound
// wherever it is broken off; what it has done is in the log, so the next goes on:
//
//	tick      the bucket is asked for the time; a store day may end
//	expire    paths that no use, no live path and no pin keeps      ─► withdrawn
//	recipes   NARs that no path has named for the NAR grace          ─► removed
//	condemn   chunks that no recipe names                            ─► dead, objects without life buried
//	bury      objects that were buried for the readers' grace        ─► deleted from the bucket, forgotten
//	rewrite   objects that are mostly dead, or to be purged          ─► packs moved, old objects buried
//	sweep     objects, and rows, of uploads that were never finished ─► deleted
//
// # What lives
//
// A path lives in its cache if it was used within the cache's retention, or if a kept
// revision of a pin names it, or if a path that lives refers to it (forest). With a
// quota the paths that live are put in the order of their use, closures of pins first
// and each path after all it refers to; what of that order fits is kept (fit). What is
// weighed are stored bytes, a chunk once however many NARs share it. References never leave
// a cache: each must be complete by itself.
//
// A chunk lives if a recipe names it, whoever made the recipe: the recipes of one state
// are read, a bit is set for each chunk they name (marks), and what has no bit is dead.
// Chunks of packs that were uploaded a short while ago may belong to a push that has
// not ended. They are condemned only if a recipe named them that this round has removed.
//
// # Why it cannot race a push
//
// A round looks at one state and acts on later ones. Every removal is checked where it
// is done, in the operation of the log: see catalog.Mark. This package has to remove
// things in an order in which each step makes the next one safe, and to name nothing as
// dead that it has not looked at: if a recipe cannot be read, nothing is condemned.
//
// # Time
//
// All ages and graces are counted in store days (catalog.Clock), which end by the clock
// of the bucket. The local clock only measures how long a round took, and decides when a
// server begins the next. An age is never more than the true one, so a grace is never
// less than it says, and up to a day more.
//
// # Dry runs
//
// What a path frees is what the store would not need any more once it and the paths
// named before it are gone. To find that out everything that stays is put on a heap, a
// chunk once, and then what goes, last first: what a path adds is what it frees. The sum
// is exact, in shares of frames as they are stored; objects shrink when they are rewritten.
//
// # Deletion
//
// [Collector.Delete] withdraws paths at once and marks their NARs as to be purged: when
// the grace has ended (or now) their chunks are condemned, and every object that holds
// such a chunk is written again without it, however little that is; so is every object with
// another copy of one, in which it had died before or which another server stored at about
// the same time (copies). It joins the collection
// that is running, or begins one, so that its operation sees what has come to need the paths
// since they were chosen; then it thinks again.
//
// # Memory
//
// A path takes some 74 bytes while its cache is judged, a chunk one bit, a chunk that
// is to be condemned some 50 bytes, of at most four million at a time.
//
// # Concurrency
//
// A Collector may be used by many goroutines; of rounds that overlap, in one process or
// in many, the later one fences the earlier.
package gc
