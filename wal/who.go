package wal

import (
	"context"
	"strings"
)

// maxWhoBytes bounds what is kept of the name of whoever asked for an operation.
const maxWhoBytes = 128

type whoKey struct{}

// As returns a context under which operations are committed on behalf of who: the
// subject of a token, or the name of a program. It stands in the log beside the
// operation's name, for people.
func As(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, whoKey{}, who)
}

// Who returns on whose behalf ctx acts; "" if nobody said.
func Who(ctx context.Context) string {
	who, _ := ctx.Value(whoKey{}).(string)
	return who
}

// boundary is the entry that precedes those of an operation. Its value is what the
// operation is about, a space, and who asked for it; a dozen bytes or two, and none if
// neither is known.
func (o *Op) boundary() Entry {
	e := Entry{Kind: PushBoundary, Key: []byte(cut(o.Name, maxNameBytes))}
	if o.About != "" || o.By != "" {
		e.Value = []byte(strings.TrimRight(cut(o.About, maxWhoBytes)+" "+cut(o.By, maxWhoBytes), " "))
	}
	return e
}

// Boundary takes apart what a PushBoundary entry says.
func (e *Entry) Boundary() (name, about, by string) {
	about, by, _ = strings.Cut(string(e.Value), " ")
	return string(e.Key), about, by
}
