package wal

import "errors"

// What a caller of Commit may conclude. Match with errors.Is.
var (
	// ErrConflict: nothing happened, and nothing will. The operation may be tried again.
	ErrConflict = errors.New("nothing was committed")
	// ErrUnknown: it may have happened, or may happen yet. Operations on content
	// are idempotent, so trying again is harmless.
	ErrUnknown = errors.New("outcome unknown")
	// ErrUnavailable: nothing happened; the bucket takes no writes at the moment.
	ErrUnavailable = errors.New("the log cannot be written at the moment")
	// ErrFenced: this writer's session is gone, so it cannot tell what became of
	// its batch. Always together with ErrUnknown. The Log goes on under a new writer id.
	ErrFenced = errors.New("writer is fenced")
	// ErrForked: the bucket let two objects win one slot, or lost one. The Log
	// is read-only for good.
	ErrForked = errors.New("log is forked")
	// ErrRolledBack: ROOT went back to an earlier revision. The Log is read-only
	// for good.
	ErrRolledBack = errors.New("log was rolled back")
	// ErrTooOld: this program is too old for what the bucket holds.
	ErrTooOld = errors.New("this celler is too old for the bucket")
	// ErrClosed: the Log was closed; nothing happened.
	ErrClosed = errors.New("log is closed")
)
