// Package waltest drives logs through faults and contention and checks the history.
//
// [State] is the simplest State: a sorted map. It can write and load snapshots of
// itself, so that logs can be truncated under replicas before there is a compactor
// for it: see [State.Snapshot] and [Truncate].
//
// # Concurrency
//
// A State may be used as wal.State demands. One mutex guards everything.
package waltest
