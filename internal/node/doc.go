// Package node assembles a running celler from a Config and stops it in the reverse order.
//
// [Open] probes the buckets, founds the log's if it is empty, brings the index up to
// date and listens; [Node.Run] serves until its context ends; [Node.Close] lets go of
// everything. What else can be done with a bucket and no server, for the verbs on the
// server's side, is here too: [Probe], [Init], [ReadLog], [Compact], [MintToken].
//
// # Order
//
//	bucket ─► probe ─► FORMAT ─► index ─► log ─► catalog ─► chunk store ─► token key ─► HTTP
//
// Each is closed after those to its right. Run waits for the goroutines it starts:
// the log's poll, the sweep of destroyed caches, the rounds of compaction, and the
// HTTP server, whose requests it lets finish for as long as drain-timeout says.
//
// # Concurrency
//
// Open, Run and Close are called once each, by one goroutine.
package node
