// Package httpapi speaks the Nix cache protocol and the Attic-compatible API over catalog and chunk; it holds no state.
//
// There is one function, [New], which returns the handler of everything a node
// serves. docs/http-api.md lists the routes with their headers and status codes.
//
// # Contract
//
// Permission comes first. Who has no right at all on a cache's name gets 401 whether the
// cache, or anything in it, exists or not, and after the same work; who has one gets
// an exact answer.
//
// A 404 about a cache or a path is linearizable: the catalog catches up with the log
// before it denies anything, because a Nix client believes a denial for an hour.
//
// A response is not started before it can be finished. A NAR whose bytes turn out
// not to be readable half-way ends with a torn connection, never with a clean end.
//
// An upload that is refused, cut off or wrong leaves nothing visible. Its body is
// always read and hashed, even if the NAR is known, so that nobody obtains a path whose
// content they cannot show.
//
// # Errors
//
// Handlers return errors; errors.go holds the one table that turns them into a status
// code, a name and a sentence.
//
// # Concurrency
//
// The handler may be used by any number of goroutines. What one request may hold in
// memory is bounded, and a peer that neither reads nor writes loses its connection
// after Options.StallTimeout. The package starts one goroutine per upload, which the
// handler waits for.
package httpapi
