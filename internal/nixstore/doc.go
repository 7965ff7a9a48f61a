// Package nixstore asks the local Nix store for closures, path info and NARs.
//
// It speaks the Nix worker protocol itself: to the daemon's socket, or, where
// there is none, to a "nix-daemon --stdio" of its own, which needs no daemon, no
// root and no configuration. No output of a nix command is parsed, so that a
// closure of ten thousand paths costs a few round trips instead of a process
// each. File contents do not pass through the daemon: [Store.Dump] reads the
// store directory.
//
// # Protocol
//
// All numbers are 64 bits, little-endian; a string is its length, its bytes, and
// zeros up to a multiple of eight; a list is its length and its elements.
//
//	client                                   daemon
//	magic "cxin", version             ->
//	                                  <-     magic "oixd", version
//	features                          ->                             from 1.38
//	                                  <-     features                from 1.38
//	0, 0 (affinity, reserved space)   ->
//	                                  <-     Nix version             from 1.33
//	                                  <-     trust                   from 1.35
//	                                  <-     messages, LAST
//	operation, arguments              ->
//	                                  <-     messages, LAST or ERROR
//	                                  <-     result                  after LAST
//
// The version in use is the lower of both; 1.21 (Nix 2.3) to 1.38 are spoken,
// which includes every Lix. Messages are log lines and progress, of which none
// matters here; they are read and dropped.
//
// Requests are pipelined: up to [maxUnread] bytes of them are written before the
// first answer is read. That is less than what the smallest pipe holds, so
// neither side can wait for the other to read.
//
// # Trust
//
// The daemon is trusted to tell the truth but not to be well: every length is
// bounded before memory is spent on it, and a connection that hangs up, or says
// what cannot be understood, is an error that all later calls repeat.
//
// # Concurrency
//
// A Store may be used by many goroutines; their requests take turns on the one
// connection. A call whose context ends while it waits for the daemon gives up
// the connection, since the answer can no longer be told from the next one.
package nixstore
