// Package sim runs many nodes against one simulated bucket in a deterministic world.
//
// A [World] owns everything a node cannot control: when the bucket performs a
// request and when the answer arrives, whether either is lost, which clock a node
// reads, how long a sleep lasts, who runs next. It draws all of that from one
// seed. Between two steps every goroutine is parked, which testing/synctest
// observes, so a run is a function of its seed and a failing seed fails again.
//
// The nodes run the real wal and index. What clients saw is checked by porcupine
// against a model of a linearizable map of lists; at the end every replica, and a
// fresh one that reads only the bucket, must have the same state, and every
// acknowledged append must be in it exactly once.
//
// [Collecting] is the same with all that looks after a bucket: the real catalog, chunk
// store, collectors, compactors and checks, beside clients that push, read, pin, delete, set
// bookmarks and restore. Processes crash, and are stopped for days. What clients were
// told is kept in facts, from which follows what must be there: at the end, and weeks later,
// every path that was promised is, everything reads back byte for byte as it always
// did, states of bookmarks are what they were, counts are right, and nothing is left that
// nobody needs.
//
// In some of these trials clients push by chunks: they speak docs/protocol.md to the real
// handler of httpapi, each request to a node of its choice, over connections that lose
// requests and answers. They ask which chunks are missing, wait for minutes or days, send
// batches, commit several paths at once, are told which chunks have gone, break off, and go on
// with the receipts that they have. What was acknowledged is read back from every node;
// nothing of a commit that was refused is ever seen; nobody is refused for ever; and a
// tenant who has hashes, and receipts of others, and no bytes, gets nothing.
//
// A run with collectors is a function of its seed but for one in fifty, in which two
// goroutines of the chunk store or of a check were ready at once; with pushes by chunks one
// in fifteen.
//
// A protocol rule that nobody would miss is not proven to be needed. Each rule can
// be switched off in builds with the tag "mutant" (see wal.Mutants); the tests
// then demand that some seed finds a violation within a bound.
//
// # Concurrency
//
// One goroutine, the one that calls Run, schedules. All others are the nodes' and
// actors' own; they park in World.Pause, in a sleep, or in a request.
package sim
