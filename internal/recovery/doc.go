// Package recovery rebuilds ROOT, FORMAT and the state of a bucket from what the bucket still holds, after it has said what is lost.
//
// Nothing else in celler works around a damaged log: servers stop and say so. This
// package is for the operator who has decided that what is left is to be used.
//
//	Examine ─► Plan, which says what is wrong, what is lost and what would be written
//	Plan.Execute ─► evidence copied ─► tables and snapshot ─► ROOT ─► FORMAT
//
// # What is used
//
// The newest snapshot all of whose tables are there and are what was written; without
// any, the empty state before the first slot. Then the longest run of slots behind it
// that follow each other by their digests. That much is proven to be what the servers
// had. If it reaches the end of the log, nothing is lost: ROOT is written again, and
// the snapshot too if it was another than the one ROOT named.
//
// If slots behind that run are missing or damaged, or if there is no way to begin at
// all, or if salvage is asked for, the state is put together from what is left, as
// far as it was proven or, in a salvage, of all tables and slots that can be read, in
// their order. Packs that this state does not know, or believes elsewhere, are
// adopted from their own footers, so that what is pushed again is not stored again.
// No count and no age is taken over: a collector has to count first, and everything
// is as if used today. Such a state may refer to what is not there: `celler fsck --objects --repair` has to
// follow.
//
// # Numbers never go back
//
// A state that lacks slots is written as the snapshot of a slot that is far above all
// that were ever seen, and the floor is above it. So slots of the lost history, also
// ones that a server writes which still sleeps, lie below the floor and mean nothing
// (I1); a server that was ahead finds itself below the floor and loads the snapshot.
// Revision and compaction epoch are above all that the bucket shows traces of.
//
// # Evidence
//
// Whatever is replaced, and what would be deleted for lying below the floor, is copied
// first, under a number that is used once:
//
//	recover/<number: 8 hex digits>/ROOT        what was there under that name
//	recover/<number>/log/<slot>
//	recover/<number>/REPORT                    the plan, as JSON
//	recover/<number>/DONE                      ROOT and FORMAT were written
//
// Nothing deletes these; they are for people. A report without DONE is of a recovery
// that was broken off: the snapshot it left, which nobody ever used, is put away.
//
// # Absence
//
// An object counts as missing if a listing does not show it and a get does not find
// it, both twice. It counts as damaged if it was read three times and never
// decoded. Any error of the bucket, a listing that does not show what can be read, and
// one that changes, end the examination: they say nothing about what is there.
//
// # Concurrency
//
// Everything is used by one goroutine at a time. Servers should be stopped. One that
// writes nevertheless makes Execute fail; what it writes in the instant before ROOT is
// swapped is found afterwards, reported as lost and kept as evidence; later it is fenced
// by the floor, if slots were lost, and else goes on.
package recovery
