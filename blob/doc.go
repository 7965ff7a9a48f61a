// Package blob defines Bucket: the few object-store operations celler relies on (get, create, swap, list, delete), with the consistency it demands of them.
//
// A bucket maps keys to immutable byte strings. Only two operations decide
// anything in celler, and both are conditional writes:
//
//   - [Bucket.Create] fills a key that holds nothing. Of any number of
//     concurrent creates of one key at most one succeeds. This is how a slot of
//     the log is won.
//   - [Bucket.Swap] replaces an object only if it still has the tag the caller
//     saw. This is how ROOT, the one object that changes, is moved.
//
// # Outcomes
//
// A conditional write has three outcomes and the error says which:
//
//	nil                     it was written, and is durable
//	ErrExist, ErrChanged    this request did not write, and never will
//	anything else           unknown: it was written, or was not, or will be later
//
// The third one is an everyday answer and not a corner case: a timeout, a reset
// connection, a 409, a 429 or any 5xx all mean it. Reading the key and finding
// nothing does not settle it, because the request may still be on its way; only
// finding the key occupied does. For that reason Create and Swap never retry by
// themselves: a retry that meets its own first attempt would report ErrExist for
// a write that succeeded.
//
// # Consistency
//
// Every bucket must give read-after-write consistency: once a write returned
// nil, every later Get, GetIf and GetRange, from any process, sees it or a newer
// one; once a Delete returned nil, they see nothing. A bucket that answers
// "absent" from a cache, that lets two creates win, or that ignores a condition
// is worse than none. [Probe] finds those before any data is written, and celler
// refuses to run on them.
//
// List is exempt: on some stores it lags behind, so it is used only to find
// garbage and to show things to people, never to decide what exists. The drivers
// of this repository for memory and file systems list what is there.
//
// # Tags
//
// A [Tag] is opaque. Different contents have different tags. Equal contents may
// have equal tags (they do on S3), so a caller of Swap must never write the same
// bytes to one key twice and expect the two versions to be told apart: what is
// swapped has to carry a number that only grows.
//
// # Keys
//
// See [Key.Valid] for the alphabet. No key may be the directory of another
// ("a" and "a/b" both objects), because on file systems, and on gateways to file
// systems, they cannot both exist. Drivers may refuse the second one.
//
// # Concurrency
//
// A Bucket may be used by many goroutines and by many processes at once. Bodies
// passed in are not kept after the call returns; bodies returned belong to the
// caller.
package blob
