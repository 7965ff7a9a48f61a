// Package s3blob implements blob.Bucket on the S3 API.
//
// Create is a PutObject with If-None-Match: *, Swap one with If-Match. Both are
// sent exactly once: the SDK's retries are off for them, because a retry that
// meets its own first attempt would be told 412 for a write that succeeded, and
// because a retry is signed anew and so would prolong the time in which the
// request can still land. Reads, deletes, listings and unconditional puts are
// retried by the SDK. What comes back is read narrowly:
//
//	412                        ErrExist (Create), ErrChanged (Swap)
//	404 NoSuchKey              ErrNotExist; ErrChanged (Swap)
//	304                        ErrUnchanged
//	409, 429, 5xx, no answer   unknown, an *blob.Error that says so by its kind
//
// A server may refuse a conditional write before it has read the body and close
// the connection, and the client then sees a reset instead of the refusal. To
// make that rare, conditional writes with a body of any length to speak of ask
// first (Expect: 100-continue).
//
// A bucket that takes no part in this (it ignores conditions, or checks them
// before it writes without a lock) is not detected here but by blob.Probe.
//
// # Addresses
//
// ParseURL turns an address into Options; docs/buckets.md describes all
// parameters. Credentials come from the SDK's usual chain (environment, shared
// files and profiles, web identity, container and instance roles) unless they
// are given in Options; they are never part of an address.
//
// # Concurrency
//
// A Bucket may be used by many goroutines. Close drops the idle connections.
package s3blob
