package wal

import (
	"fmt"
	"time"
)

// Kind says what an entry does. The numbers are part of the wire format.
//
// A reader that meets an unknown kind of 128 and above ignores the entry; an
// unknown kind below 128 stops it, because the state would be wrong without it.
type Kind uint8

const (
	// Set maps Key to Value.
	Set Kind = 1
	// Delete removes Key. Value is empty.
	Delete Kind = 2
	// DeleteRange removes every key in [Key, Value).
	DeleteRange Kind = 3
	// PushBoundary changes nothing. It marks where the entries of one operation
	// begin: Key is its name, Value is for people and metrics.
	PushBoundary Kind = 16
)

// firstOptionalKind is the first kind that a reader may ignore.
const firstOptionalKind Kind = 128

func (k Kind) String() string {
	switch k {
	case Set:
		return "set"
	case Delete:
		return "delete"
	case DeleteRange:
		return "delete-range"
	case PushBoundary:
		return "push-boundary"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Entry is one effect: what a segment does to one key, or to a range of keys.
type Entry struct {
	Kind       Kind
	Key, Value []byte
}

// Segment is the content of one slot.
type Segment struct {
	Store   StoreID
	Seq     Seq
	Prev    Digest    // of the object in slot Seq-1
	Writer  WriterID  // who claimed the slot
	Batch   uint64    // which batch of the writer this is: 1, 2, 3…
	Time    time.Time // the writer's clock, milliseconds; information only
	Entries []Entry
}
