package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// strangerTag is a well-formed tag that no object has.
const strangerTag = Tag(`"00000000000000000000000000000000"`)

const (
	promiseCreate = "create fills a free key and never an occupied one"
	promiseSwap   = "swap replaces an object only if its tag is the expected one"
	promiseGetIf  = "a conditional get tells whether the object changed"
	promiseDelete = "a deleted object is gone at once, and its key is free"
	promiseRange  = "a range of an object can be read"
	promiseList   = "a listing is sorted and starts where it is asked to"
	promiseClock  = "the clocks of the bucket and of this machine agree"

	hintConditional = "this store cannot hold the log: upgrade it, or keep only packs here and give --log-bucket a store that qualifies (docs/buckets.md)"
	hintCache       = "something between celler and the store answers from a cache: use the store's own endpoint"
	hintStore       = "this store does not qualify (docs/buckets.md)"
	hintClock       = "set this machine's clock, for example by running an NTP client"
)

// shortChecks is one object's life in six requests.
func (p *prober) shortChecks() []check {
	key := p.key("short")
	body := []byte("celler probe " + string(p.dir))
	var tag Tag
	return []check{
		{"create", promiseCreate, hintConditional, func(ctx context.Context) (string, error) {
			var err error
			if tag, err = p.b.Create(ctx, key, body); err != nil {
				// The first attempt may have landed: any other key is as good.
				failed := key
				key = p.key("short")
				return "", unexpected(err, "create of free key %s", failed)
			}
			return "a free key was filled", nil
		}},
		{"create-occupied", promiseCreate, hintConditional, func(ctx context.Context) (string, error) {
			return p.wantExist(ctx, key)
		}},
		{"get", "an object can be read as soon as it is written", hintCache, func(ctx context.Context) (string, error) {
			return p.wantBody(ctx, key, body)
		}},
		{"get-if", promiseGetIf, hintStore, func(ctx context.Context) (string, error) {
			return p.wantUnchanged(ctx, key, tag)
		}},
		{"swap-stale", promiseSwap, hintConditional, func(ctx context.Context) (string, error) {
			return p.wantChanged(ctx, key, strangerTag)
		}},
		{"delete", promiseDelete, hintStore, func(ctx context.Context) (string, error) {
			err := p.b.Delete(ctx, key)
			if KindOf(err) == KindDenied {
				return "not allowed; probe objects stay below probe/", nil
			}
			p.forget(key)
			return "deleted", err
		}},
	}
}

// fullChecks are the checks made when a bucket is founded, and on demand.
func (p *prober) fullChecks() []check {
	return []check{
		{"create", promiseCreate, hintConditional, p.checkCreate},
		{"get-if", promiseGetIf, hintStore, p.checkGetIf},
		{"swap", promiseSwap, hintConditional, p.checkSwap},
		{"delete", promiseDelete, hintCache, p.checkDelete},
		{"range", promiseRange, hintStore, p.checkRange},
		{"list", promiseList, hintStore, p.checkList},
		{"clock", promiseClock, hintClock, p.checkClock},
		{"create-race", "of all concurrent creates of a key one succeeds", hintConditional, p.checkCreateRace},
		{"swap-race", "of all concurrent swaps from one tag one succeeds", hintConditional, p.checkSwapRace},
	}
}

func (p *prober) checkCreate(ctx context.Context) (string, error) {
	key, body := p.key("create"), []byte("first")
	// Asking first gives a negative cache the chance to remember the answer.
	if _, _, err := p.b.Get(ctx, key); !errors.Is(err, ErrNotExist) {
		return "", unexpected(err, "get of absent key %s", key)
	}
	if _, err := p.b.Create(ctx, key, body); err != nil {
		return "", unexpected(err, "create of free key %s", key)
	}
	if _, err := p.wantBody(ctx, key, body); err != nil {
		return "", err
	}
	if _, err := p.wantExist(ctx, key); err != nil {
		return "", err
	}
	if _, err := p.wantBody(ctx, key, body); err != nil {
		return "", err
	}
	return "second create refused, first body kept", nil
}

func (p *prober) checkGetIf(ctx context.Context) (string, error) {
	key, body := p.key("getif"), []byte("content")
	tag, err := p.b.Create(ctx, key, body)
	if err != nil {
		return "", unexpected(err, "create of free key %s", key)
	}
	if _, err := p.wantUnchanged(ctx, key, tag); err != nil {
		return "", err
	}
	got, gotTag, err := p.b.GetIf(ctx, key, strangerTag)
	switch {
	case err != nil:
		return "", unexpected(err, "conditional get of %s with another tag", key)
	case !bytes.Equal(got, body) || gotTag != tag:
		return "", broken("conditional get of %s returned tag %s, it was written with %s", key, gotTag, tag)
	}
	return "unchanged object not sent again", nil
}

func (p *prober) checkSwap(ctx context.Context) (string, error) {
	key, missing := p.key("swap"), p.key("missing")
	first, err := p.b.Create(ctx, key, []byte("first"))
	if err != nil {
		return "", unexpected(err, "create of free key %s", key)
	}
	second, err := p.b.Swap(ctx, key, first, []byte("second"))
	switch {
	case err != nil:
		return "", unexpected(err, "swap of %s from its tag", key)
	case second == first:
		return "", broken("two contents of %s have the same tag %s", key, first)
	}
	if _, err := p.wantBody(ctx, key, []byte("second")); err != nil {
		return "", err
	}
	for _, stale := range []Tag{first, strangerTag} {
		if _, err := p.wantChanged(ctx, key, stale); err != nil {
			return "", err
		}
	}
	if _, err := p.wantBody(ctx, key, []byte("second")); err != nil {
		return "", err
	}
	if _, err := p.wantChanged(ctx, missing, second); err != nil {
		return "", err
	}
	if _, _, err := p.b.Get(ctx, missing); !errors.Is(err, ErrNotExist) {
		return "", unexpected(err, "get of %s, which a refused swap left absent", missing)
	}
	return "stale swaps refused, content kept", nil
}

func (p *prober) checkDelete(ctx context.Context) (string, error) {
	key := p.key("delete")
	if _, err := p.b.Create(ctx, key, []byte("first")); err != nil {
		return "", unexpected(err, "create of free key %s", key)
	}
	if _, err := p.wantBody(ctx, key, []byte("first")); err != nil {
		return "", err
	}
	switch err := p.b.Delete(ctx, key); {
	case KindOf(err) == KindDenied:
		return "not allowed; probe objects stay below probe/", nil
	case err != nil:
		return "", unexpected(err, "delete of %s", key)
	}
	if _, _, err := p.b.Get(ctx, key); !errors.Is(err, ErrNotExist) {
		return "", unexpected(err, "get of deleted %s", key)
	}
	if err := p.b.Delete(ctx, key); err != nil {
		return "", unexpected(err, "second delete of %s", key)
	}
	if _, err := p.b.Create(ctx, key, []byte("again")); err != nil {
		return "", unexpected(err, "create of deleted %s", key)
	}
	if _, err := p.wantBody(ctx, key, []byte("again")); err != nil {
		return "", err
	}
	return "gone at once, and created again", nil
}

func (p *prober) checkRange(ctx context.Context) (string, error) {
	key := p.key("range")
	body := p.body(4096)
	if _, err := p.b.Put(ctx, key, body); err != nil {
		return "", unexpected(err, "put of %s", key)
	}
	r, err := p.b.GetRange(ctx, key, 1000, 2000)
	if err != nil {
		return "", unexpected(err, "read of a range of %s", key)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	switch {
	case err != nil:
		return "", unexpected(err, "read of a range of %s", key)
	case !bytes.Equal(got, body[1000:3000]):
		return "", broken("bytes 1000 to 3000 of %s came back as %d other bytes", key, len(got))
	}
	return "2000 bytes from the middle", nil
}

func (p *prober) checkList(ctx context.Context) (string, error) {
	dir := p.key("list")
	var want []Key
	// Byte order, which is not the order of a walk through directories.
	for _, name := range []string{"a-x", "a.x", "a/x", "a0", "b"} {
		key := dir + "/" + Key(name)
		p.mu.Lock()
		p.keys = append(p.keys, key)
		p.mu.Unlock()
		if _, err := p.b.Put(ctx, key, []byte(name)); err != nil {
			return "", unexpected(err, "put of %s", key)
		}
		want = append(want, key)
	}
	lag := 0
	for i, after := range append([]Key{""}, want...) {
		var got []Key
		for info, err := range p.b.List(ctx, dir+"/", after) {
			if err != nil {
				return "", unexpected(err, "list of %s/ after %q", dir, after)
			}
			got = append(got, info.Key)
		}
		ok := slices.IsSorted(got)
		for _, k := range got {
			ok = ok && slices.Contains(want[i:], k)
		}
		if !ok {
			return "", broken("list after %q returned %q, expected %q", after, got, want[i:])
		}
		lag += len(want[i:]) - len(got)
	}
	if lag > 0 {
		return "sorted, but it lags behind writes (allowed)", nil
	}
	return "sorted and complete", nil
}

func (p *prober) checkClock(ctx context.Context) (string, error) {
	key := p.key("clock")
	if _, err := p.b.Put(ctx, key, []byte("tick")); err != nil {
		return "", unexpected(err, "put of %s", key)
	}
	now := p.o.Now()
	for info, err := range p.b.List(ctx, key, "") {
		if err != nil {
			return "", unexpected(err, "list of %s", key)
		}
		offset := info.ModTime.Sub(now).Round(time.Second)
		switch {
		case offset.Abs() > clockFail:
			return "", broken("the bucket's clock is %v off", offset)
		case offset.Abs() > clockWarn:
			return fmt.Sprintf("the bucket's clock is %v off (harmless for data, confusing for people)", offset), nil
		}
		return fmt.Sprintf("within %v", clockWarn), p.sweep(ctx, info.ModTime)
	}
	return "the bucket did not tell (its listing lags)", nil
}

// wantBody reads key and expects body.
func (p *prober) wantBody(ctx context.Context, key Key, body []byte) (string, error) {
	got, _, err := p.b.Get(ctx, key)
	switch {
	case err != nil:
		return "", unexpected(err, "get of %s", key)
	case !bytes.Equal(got, body):
		return "", broken("get of %s returned %s, expected %s", key, excerpt(got), excerpt(body))
	}
	return "read what was written", nil
}

func (p *prober) wantExist(ctx context.Context, key Key) (string, error) {
	_, err := p.b.Create(ctx, key, []byte("intruder"))
	if !errors.Is(err, ErrExist) {
		return "", unexpected(err, "create of occupied key %s", key)
	}
	return "a create of an occupied key was refused", nil
}

func (p *prober) wantChanged(ctx context.Context, key Key, stale Tag) (string, error) {
	_, err := p.b.Swap(ctx, key, stale, []byte("intruder"))
	if !errors.Is(err, ErrChanged) {
		return "", unexpected(err, "swap of %s from stale tag %s", key, stale)
	}
	return "a swap from a stale tag was refused", nil
}

func (p *prober) wantUnchanged(ctx context.Context, key Key, tag Tag) (string, error) {
	_, _, err := p.b.GetIf(ctx, key, tag)
	if !errors.Is(err, ErrUnchanged) {
		return "", unexpected(err, "conditional get of unchanged %s", key)
	}
	return "unchanged object not sent again", nil
}

// forget takes key off the list of things to clean up.
func (p *prober) forget(key Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = slices.DeleteFunc(p.keys, func(k Key) bool { return k == key })
}

// unexpected turns the wrong outcome of a request into a broken promise if the
// bucket answered, and passes the error on if it did not.
func unexpected(err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if err == nil {
		return broken("%s succeeded", what)
	}
	for _, s := range []error{ErrNotExist, ErrExist, ErrChanged, ErrUnchanged} {
		if errors.Is(err, s) {
			return broken("%s: %v", what, s)
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// excerpt prints the beginning of a probe body, which starts with text.
func excerpt(body []byte) string {
	line, _, _ := strings.Cut(string(body[:min(len(body), 60)]), "\n")
	return fmt.Sprintf("%q (%d bytes)", line, len(body))
}
