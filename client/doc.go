// Package client pushes, pulls and administers over the HTTP API.
//
// [New] makes a [Client] for one server; [Client.Push] is what most callers want:
// it takes store paths of the local Nix store, finds their closure, asks the server
// what it lacks and uploads that. Everything else is one call of the API each.
//
// It speaks Attic's protocol, so the other side may be celler, Attic or one of
// Attic's descendants; what they lack ([Client.Caches], [Client.Paths]) is answered
// with a [StatusError] of status 404.
//
// # Order
//
// Which paths a cache lacks is asked for the roots first, and below them only where something
// is missing (survey.go).
//
// To a celler, chunks are pushed (docs/protocol.md): what the server lacks of a NAR, in
// batches of any paths, and then the paths are committed. To others, each NAR is uploaded
// as a whole.
//
// A path is committed, or its upload begins, only when all its references are in the cache: uploaded
// by this push, there before, or expected in an upstream cache. So a reader never
// sees a path whose references are still on their way, and when an upload fails for
// good its referrers are not tried but reported as [Skipped].
//
// # Errors and retries
//
// The requests of a push are idempotent and are retried here and nowhere else, with
// exponential backoff, jitter and the server's Retry-After; see [Retry]. Final at
// once is what a repetition cannot change: bad credentials, no such cache, malformed
// input. Errors that an answer of the server caused are *[StatusError].
// See docs/adr/0008-what-is-retried-where.md.
//
// # Memory
//
// A NAR is read from the store directory while it is sent. A push of chunks has at most
// 64 MiB of NARs in hand, one of whole NARs at most 5 MiB per upload, most of it small
// files read ahead, whatever the size of the NARs; and about 1 KiB per path of the closure that
// is looked at. Logs of builds are read while they are sent.
//
// # Concurrency
//
// A Client may be used by many goroutines. Push starts its own and waits for them.
// Lock order: none; the scheduler belongs to one goroutine, and the limiter's mutex
// is never held across a call.
package client
