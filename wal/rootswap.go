package wal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/celler/celler/blob"
)

// RootChange describes who changes ROOT and how patiently.
type RootChange struct {
	Env Env
	By  string // stands in ROOT, for people
}

// Swap changes ROOT and returns what it holds then. The change is given the
// present content and states what it wants as "raise this field to at least
// that"; it is called again whenever somebody else was faster, and may return an
// error to give up. Leaving the content as it is means that the wish is
// fulfilled already: Swap returns without a write.
//
// A swap that got no answer is resolved by reading: if ROOT has our nonce it
// landed; if ROOT is still the version we started from, the same bytes are sent
// again under the same tag, of which only one can land; and if ROOT is something
// else, the change is worked out anew. An unanswered swap therefore never becomes
// a second change, and Swap returns only once it knows, or when ctx is done. A swap
// that the bucket refuses at once (no right to write, nothing that can be written) is
// not repeated if ROOT is found unchanged: a person has to do something first.
func (o RootChange) Swap(ctx context.Context, bucket blob.Bucket, change func(*Root) error) (Root, error) {
	env := o.Env.withDefaults()
	retry := newBackoff(env)
	for {
		old, tag, err := readRoot(ctx, bucket)
		if err != nil {
			return Root{}, err
		}
		next, body, err := o.next(env, old, change)
		if err != nil || body == nil {
			return old, err
		}
		landed, err := o.swap(ctx, bucket, retry, tag, next, body)
		if err != nil {
			return Root{}, err
		}
		if landed {
			return next, nil
		}
	}
}

// next works out the changed content. A nil body means that nothing changes.
func (o RootChange) next(env Env, old Root, change func(*Root) error) (Root, []byte, error) {
	next := old
	next.Features = append([]string(nil), old.Features...)
	next.Bookmarks = maps.Clone(old.Bookmarks)
	next.Doomed = slices.Clone(old.Doomed)
	if err := change(&next); err != nil {
		return old, nil, err
	}
	before, err := EncodeRoot(old)
	if err != nil {
		return old, nil, err
	}
	after, err := EncodeRoot(next)
	if err != nil {
		return old, nil, err
	}
	if string(before) == string(after) {
		return old, nil, nil
	}
	next.Rev, next.By, next.At = old.Rev+1, o.By, env.Now().UTC().Truncate(time.Millisecond)
	if next.Nonce, err = nonce(env.Rand); err != nil {
		return old, nil, err
	}
	if err := CheckTransition(old, next); err != nil {
		return old, nil, err
	}
	body, err := EncodeRoot(next)
	return next, body, err
}

// swap sends body until it is known to have landed, or to have lost.
func (o RootChange) swap(ctx context.Context, bucket blob.Bucket, retry *backoff, tag blob.Tag, next Root, body []byte) (landed bool, err error) {
	for first := true; ; first = false {
		_, err := bucket.Swap(ctx, RootKey, tag, body)
		if err == nil {
			return true, nil
		}
		// "Changed" is no proof that somebody else was faster: our own earlier
		// attempt may be what it has changed to.
		now, nowTag, rerr := readRoot(ctx, bucket)
		switch {
		case rerr == nil && now.Nonce == next.Nonce:
			return true, nil
		case rerr == nil && nowTag != tag:
			return false, nil
		case errors.Is(rerr, blob.ErrNotExist):
			return false, rerr
		}
		if ctx.Err() != nil || (first && rerr == nil && refused(err)) {
			return false, fmt.Errorf("swap ROOT: %w: %w", ErrUnknown, err)
		}
		retry.sleep(ctx)
	}
}

// refused reports whether an error says that the bucket does not take writes from us,
// and not only that this one got no answer.
func refused(err error) bool {
	switch blob.KindOf(err) {
	case blob.KindDenied, blob.KindReadOnly, blob.KindNoBucket:
		return true
	default:
		return false
	}
}
