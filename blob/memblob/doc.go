// Package memblob implements blob.Bucket in memory.
//
// It promises no more than S3 does, so that code tested on it cannot come to
// rely on more: equal contents have equal tags, and a key may not be the
// directory of another. Everything is lost with the process.
//
// # Concurrency
//
// A Bucket may be used by many goroutines. One mutex guards the map; no call
// blocks while it is held.
package memblob
