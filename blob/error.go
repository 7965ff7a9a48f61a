package blob

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Kind classes the errors of buckets by what can be done about them.
type Kind uint8

// The kinds of [Error].
const (
	KindOther       Kind = iota
	KindThrottled        // the bucket asks for patience: 429, 503 SlowDown
	KindUnreachable      // no answer: name, connection, timeout, 5xx
	KindDenied           // credentials missing, wrong, or without the right
	KindNoBucket         // there is no such bucket or directory
	KindFull             // no space or quota left
	KindReadOnly         // the bucket cannot be written at all
	KindUnsupported      // the bucket does not know a request we rely on
	KindCorrupt          // the bytes that arrived are not the bytes that were stored
)

var kindNames = [...]string{ //nolint:gochecknoglobals // a constant table
	"other", "throttled", "unreachable", "denied", "no-bucket", "full", "read-only", "unsupported", "corrupt",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Error reports a bucket operation that ended in none of the four sentinel
// outcomes. For a conditional write that means: outcome unknown.
type Error struct {
	Op     string // "get", "create", ... as in Call.Op
	Bucket string // what the operator calls the bucket: a URL without secrets, or a directory
	Key    Key    // empty for List and for errors of the whole bucket
	Kind   Kind
	Hint   string // what the operator can do, or ""
	Err    error
}

func (e *Error) Error() string {
	var s strings.Builder
	s.WriteString(e.Op)
	if e.Key != "" {
		fmt.Fprintf(&s, " %s", e.Key)
	}
	if e.Bucket != "" {
		fmt.Fprintf(&s, " in %s", e.Bucket)
	}
	fmt.Fprintf(&s, ": %v", e.Err)
	return s.String()
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first *Error in err's tree. A context's
// deadline counts as unreachable.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok && e.Kind != KindOther {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return KindUnreachable
	}
	return KindOther
}

// HintOf returns the first hint in err's tree, or "".
func HintOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint
	}
	return ""
}
