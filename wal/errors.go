package wal

import (
	"errors"
	"fmt"
	"time"

	"github.com/celler/celler/blob"
)

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

// CorruptError reports an object whose bytes are not what they must be. It is
// never worked around: another read may fare better, a repair is for people.
type CorruptError struct {
	Key    blob.Key // empty if the decoder was not told
	Offset int64    // of the offending bytes in the object, or in the body once that is unpacked
	What   string   // the part that is wrong
	Want   string
	Got    string
}

func (e *CorruptError) Error() string {
	name := string(e.Key)
	if name == "" {
		name = "object"
	}
	return fmt.Sprintf("%s is corrupt at offset %d: %s: want %s, got %s", name, e.Offset, e.What, e.Want, e.Got)
}

func corrupt(offset int, what, want string, got any) *CorruptError {
	return &CorruptError{Offset: int64(offset), What: what, Want: want, Got: fmt.Sprint(got)}
}

// named puts the name of the object into a CorruptError that a decoder returned.
func named(key blob.Key, err error) error {
	if c, ok := errors.AsType[*CorruptError](err); ok && c.Key == "" {
		c.Key = key
		return err
	}
	return fmt.Errorf("read %s: %w", key, err)
}

// TooNewError reports something in the bucket that a later celler wrote and that
// this one does not know. errors.Is(err, ErrTooOld).
type TooNewError struct {
	What  string // "FORMAT version", "ROOT feature", …
	Found string
	Known string // what this program knows
}

func (e *TooNewError) Error() string {
	return fmt.Sprintf("%s is %s, this celler knows %s", e.What, e.Found, e.Known)
}

// Is makes every TooNewError an ErrTooOld.
func (e *TooNewError) Is(target error) bool { return target == ErrTooOld }

// ForeignError reports an object that belongs to another store: a copied bucket,
// or a wrong prefix.
type ForeignError struct {
	Key        blob.Key
	Store, Own StoreID
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s belongs to store %v, not to %v", e.Key, e.Store, e.Own)
}

// ForkError reports two histories in one log. errors.Is(err, ErrForked).
type ForkError struct {
	Seq    Seq // the slot whose object shows it
	Detail string
}

func (e *ForkError) Error() string {
	return fmt.Sprintf("log is forked at slot %v: %s", e.Seq, e.Detail)
}

// Is makes every ForkError an ErrForked.
func (e *ForkError) Is(target error) bool { return target == ErrForked }

// TransitionError reports a change of ROOT that breaks I9.
type TransitionError struct {
	Field    string
	Old, New string
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("ROOT: %s must not go from %s to %s", e.Field, e.Old, e.New)
}

// TooLargeError reports an operation that no segment can hold. Nothing happened.
type TooLargeError struct {
	Op         string
	Bytes, Max int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("operation %q needs %d bytes of entries, a segment holds %d", e.Op, e.Bytes, e.Max)
}

// EntryError reports an operation whose Build returned an entry that may not be
// written. Nothing happened.
type EntryError struct {
	Op     string
	Key    []byte
	Reason string
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("operation %q: entry %.80q: %s", e.Op, e.Key, e.Reason)
}

// InDoubtError tells, from Log.Err, that a batch is in doubt for longer than
// Options.GiveUp. It passes when the slot is settled. errors.Is(err, ErrUnknown).
type InDoubtError struct {
	Seq      Seq
	Writer   WriterID
	Batch    uint64
	Attempts int
	Since    time.Time
	Cause    error
}

func (e *InDoubtError) Error() string {
	return fmt.Sprintf("batch %d of writer %v is in doubt at slot %v after %d attempts: %v",
		e.Batch, e.Writer, e.Seq, e.Attempts, e.Cause)
}

// Is makes every InDoubtError an ErrUnknown.
func (e *InDoubtError) Is(target error) bool { return target == ErrUnknown }

// Unwrap returns the error of the last attempt.
func (e *InDoubtError) Unwrap() error { return e.Cause }
