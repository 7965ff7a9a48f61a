// Package agent works off the queue of paths to push until nothing is left of it.
//
// [Agent.Run] takes entries from a [queue.Queue], pushes their paths in batches, and
// removes an entry when all its paths are in the cache it is for, or do not exist in
// the local store any more. It never gives an entry up: what fails is tried again, for
// days if need be.
//
// # What waits for what
//
// Entries for different targets do not wait for each other: each target has its own
// lane, with one batch in hand. When the cache of a lane does not answer, or refuses
// everything, the whole lane pauses, from a second to two minutes. When it is an entry
// that fails, for a path that is damaged or that the cache refuses, the entry alone
// pauses, from five seconds to an hour, and is pushed by itself from then on.
//
// Which of the two it is cannot always be told from an error. So a batch of which some
// path failed is pushed again entry by entry, and so is one after three failures of the
// lane in a row: if another entry succeeds, the failures are the entries' own; if none
// does, or three in a row fail, it is taken to be the cache. When a cache is well again,
// entries that failed in that unclear way are as good as never tried.
//
// # Local collection
//
// Queued paths are temporary roots for as long as the agent runs. What is left when a
// push failed, or when the agent stops, becomes an indirect root as well, by a link in
// the queue's directory, which outlives the agent and the machine's next start. Both
// cover what the paths refer to. Not covered is an entry from the moment a hook queued
// it until an agent has read it, which is when the build that ran the hook still
// protects it.
//
// # Socket
//
// The agent answers HTTP on a socket in the queue's directory:
//
//	POST /wake    look for new entries now; what a hook sends, without waiting for the answer
//	GET  /status  a [Status]
//	POST /wait    try everything now; answers a [WaitResult] when each entry that was
//	              queued has been pushed, or has failed in a way that waiting does not mend
//
// Who may open the socket may do that much; the paths and errors it tells are no secrets
// to who may read the store.
//
// # Concurrency
//
// All decisions are made by the goroutine of Run, which owns every field of an Agent
// but its channels. Batches, the protection from collection and the socket have
// goroutines of their own, and none is left when Run returns.
package agent
