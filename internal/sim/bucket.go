package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// object is one object of the simulated bucket.
type object struct {
	body []byte
	tag  blob.Tag
	at   time.Time
}

// errNoAnswer is what a caller sees of a request whose answer did not arrive.
var errNoAnswer = errors.New("no answer") //nolint:gochecknoglobals // an error value

// Bucket is one actor's connection to the world's bucket.
type Bucket struct {
	w     *World
	actor string
}

// Bucket returns actor's connection to the world's bucket.
func (w *World) Bucket(actor string) *Bucket { return &Bucket{w: w, actor: actor} }

var _ blob.Bucket = (*Bucket)(nil)

// request performs one request in two steps, perform and answer, either of which
// other requests may overtake. Writes may also be lost, answered by silence, or
// performed long after the caller has given up.
func (b *Bucket) request(ctx context.Context, what string, write bool, perform func()) error {
	w := b.w
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	var failed error
	performed := false
	e := w.add(&event{actor: b.actor, what: what, perform: func() bool {
		if performed {
			return true
		}
		performed = true
		failed = b.fault(what, write, perform)
		return failed != nil
	}})
	select {
	case <-e.done:
		return failed
	case <-ctx.Done():
		// The caller is gone. What it asked for may still happen.
		if w.remove(e) && write && !performed {
			b.later(what, perform)
		}
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}

// fault performs the request, or decides how it goes wrong.
func (b *Bucket) fault(what string, write bool, perform func()) error {
	w := b.w
	f := w.rng.Float64()
	if !write {
		if f < w.FaultRate/2 {
			return &blob.Error{Op: what, Kind: blob.KindUnreachable, Err: errNoAnswer}
		}
		perform()
		return nil
	}
	switch third := w.FaultRate / 3; {
	case f < third: // the request is lost
	case f < 2*third: // the answer is lost
		perform()
	case f < 3*third: // the request arrives after the caller has given up
		b.later(what, perform)
	default:
		perform()
		return nil
	}
	return &blob.Error{Op: what, Kind: blob.KindUnreachable, Err: errNoAnswer}
}

// later performs a request at some step to come, without anybody waiting.
func (b *Bucket) later(what string, perform func()) {
	b.w.add(&event{actor: "net", what: b.actor + " " + what, perform: func() bool { perform(); return true }})
}

func (w *World) store(key blob.Key, body []byte) blob.Tag {
	w.version++
	tag := blob.Tag(fmt.Sprintf(`"%d"`, w.version))
	w.objects[string(key)] = object{body: slices.Clone(body), tag: tag, at: w.time()}
	return tag
}

// Get implements blob.Bucket.
func (b *Bucket) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	return b.GetIf(ctx, key, "")
}

// GetIf implements blob.Bucket.
func (b *Bucket) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	var o object
	var ok bool
	if err := b.request(ctx, "get "+string(key), false, func() {
		o, ok = b.w.objects[string(key)]
		if key == wal.RootKey && ok {
			b.w.sawRoot(b.actor, version(o.tag))
		}
	}); err != nil {
		return nil, "", err
	}
	switch {
	case !ok:
		return nil, "", fmt.Errorf("get %s: %w", key, blob.ErrNotExist)
	case old != "" && o.tag == old:
		return nil, o.tag, fmt.Errorf("get %s: %w", key, blob.ErrUnchanged)
	}
	return slices.Clone(o.body), o.tag, nil
}

// GetRange implements blob.Bucket.
func (b *Bucket) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	body, _, err := b.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	end := min(int64(len(body)), off+n)
	return io.NopCloser(bytes.NewReader(body[min(off, end):end])), nil
}

// Create implements blob.Bucket.
func (b *Bucket) Create(ctx context.Context, key blob.Key, body []byte) (tag blob.Tag, err error) {
	exists := false
	perform := func() {
		if _, exists = b.w.objects[string(key)]; exists && strings.HasPrefix(string(key), "log/") && b.w.rng.Float64() < b.w.DoubleWins {
			exists = false
		}
		if !exists {
			tag = b.w.store(key, body)
		}
	}
	if err := b.request(ctx, "create "+string(key), true, perform); err != nil {
		return "", err
	}
	if exists {
		return "", fmt.Errorf("create %s: %w", key, blob.ErrExist)
	}
	return tag, nil
}

// Swap implements blob.Bucket.
func (b *Bucket) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (tag blob.Tag, err error) {
	changed := false
	perform := func() {
		if o, ok := b.w.objects[string(key)]; !ok || o.tag != old {
			changed = true
			return
		}
		tag = b.w.store(key, body)
	}
	if err := b.request(ctx, "swap "+string(key), true, perform); err != nil {
		return "", err
	}
	if changed {
		return "", fmt.Errorf("swap %s: %w", key, blob.ErrChanged)
	}
	return tag, nil
}

// Put implements blob.Bucket.
func (b *Bucket) Put(ctx context.Context, key blob.Key, body []byte) (tag blob.Tag, err error) {
	err = b.request(ctx, "put "+string(key), true, func() { tag = b.w.store(key, body) })
	return tag, err
}

// Delete implements blob.Bucket.
func (b *Bucket) Delete(ctx context.Context, keys ...blob.Key) error {
	for _, key := range keys {
		if err := b.request(ctx, "delete "+string(key), true, func() { delete(b.w.objects, string(key)) }); err != nil {
			return err
		}
	}
	return nil
}

// List implements blob.Bucket. The protocol does not need it.
func (b *Bucket) List(_ context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		var keys []string
		for key := range b.w.objects {
			if strings.HasPrefix(key, string(prefix)) && key > string(after) {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		for _, key := range keys {
			o := b.w.objects[key]
			if !yield(blob.Info{Key: blob.Key(key), Size: int64(len(o.body)), Tag: o.tag, ModTime: o.at}, nil) {
				return
			}
		}
	}
}

// version is the number that store gave a tag.
func version(tag blob.Tag) (n int) {
	_, _ = fmt.Sscanf(strings.Trim(string(tag), `"`), "%d", &n)
	return n
}

// founder writes the first objects of a bucket before there is a scheduler.
type founder struct{ w *World }

var _ blob.Bucket = founder{}

func (f founder) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	return f.GetIf(ctx, key, "")
}

func (f founder) GetIf(_ context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	o, ok := f.w.objects[string(key)]
	switch {
	case !ok:
		return nil, "", blob.ErrNotExist
	case old != "" && o.tag == old:
		return nil, o.tag, blob.ErrUnchanged
	}
	return slices.Clone(o.body), o.tag, nil
}

func (f founder) Create(_ context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if _, ok := f.w.objects[string(key)]; ok {
		return "", blob.ErrExist
	}
	return f.w.store(key, body), nil
}

func (founder) GetRange(context.Context, blob.Key, int64, int64) (io.ReadCloser, error) {
	return nil, errNoAnswer
}

func (founder) Swap(context.Context, blob.Key, blob.Tag, []byte) (blob.Tag, error) {
	return "", errNoAnswer
}
func (founder) Put(context.Context, blob.Key, []byte) (blob.Tag, error) { return "", errNoAnswer }
func (founder) Delete(context.Context, ...blob.Key) error               { return errNoAnswer }
func (founder) List(context.Context, blob.Key, blob.Key) iter.Seq2[blob.Info, error] {
	return func(func(blob.Info, error) bool) {}
}
