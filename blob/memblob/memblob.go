package memblob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/celler/celler/blob"
)

// Bucket is a blob.Bucket in memory. Make one with New.
type Bucket struct {
	now func() time.Time

	mu      sync.Mutex // guards objects
	objects map[blob.Key]object
}

// object is never changed once it is in the map, so readers may use body
// without the lock.
type object struct {
	body []byte
	tag  blob.Tag
	mod  time.Time
}

var _ blob.Bucket = (*Bucket)(nil)

// New returns an empty bucket.
func New() *Bucket { return NewAt(time.Now) }

// NewAt returns an empty bucket whose clock is now.
func NewAt(now func() time.Time) *Bucket {
	return &Bucket{now: now, objects: make(map[blob.Key]object)}
}

// Get implements blob.Bucket.
func (b *Bucket) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	o, err := b.lookup(ctx, "get", key)
	if err != nil {
		return nil, "", err
	}
	return read("get", key, o)
}

// GetIf implements blob.Bucket.
func (b *Bucket) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	o, err := b.lookup(ctx, "get_if", key)
	if err != nil {
		return nil, "", err
	}
	if old != "" && o.tag == old {
		return nil, "", fmt.Errorf("get_if %s: %w", key, blob.ErrUnchanged)
	}
	return read("get_if", key, o)
}

func read(op string, key blob.Key, o object) ([]byte, blob.Tag, error) {
	if len(o.body) > blob.MaxGetBytes {
		return nil, "", fail(op, key, fmt.Errorf("object has %d bytes, at most %d are read at once", len(o.body), blob.MaxGetBytes))
	}
	return append([]byte{}, o.body...), o.tag, nil
}

// GetRange implements blob.Bucket.
func (b *Bucket) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	if err := blob.ValidRange(off, n); err != nil {
		return nil, fail("get_range", key, err)
	}
	o, err := b.lookup(ctx, "get_range", key)
	if err != nil {
		return nil, err
	}
	size := int64(len(o.body))
	from := min(off, size)
	got := o.body[from:min(size, from+min(n, size-from))]
	var r io.Reader = bytes.NewReader(got)
	if int64(len(got)) < n {
		r = io.MultiReader(r, shortReader{})
	}
	return &reader{ctx: ctx, r: r}, nil
}

// shortReader tells that an object ended before the range did.
type shortReader struct{}

func (shortReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// reader stops when its request is cancelled, as a connection would.
type reader struct {
	ctx context.Context //nolint:containedctx // the reader is the rest of the call that had this ctx
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (r *reader) Close() error { return nil }

// Create implements blob.Bucket.
func (b *Bucket) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	return b.write(ctx, "create", key, body, func(_ object, ok bool) error {
		if ok {
			return blob.ErrExist
		}
		return nil
	})
}

// Swap implements blob.Bucket.
func (b *Bucket) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	return b.write(ctx, "swap", key, body, func(o object, ok bool) error {
		if !ok || o.tag != old {
			return blob.ErrChanged
		}
		return nil
	})
}

// Put implements blob.Bucket.
func (b *Bucket) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	return b.write(ctx, "put", key, body, func(object, bool) error { return nil })
}

// Delete implements blob.Bucket.
func (b *Bucket) Delete(ctx context.Context, keys ...blob.Key) error {
	for _, key := range keys {
		if err := key.Valid(); err != nil {
			return fail("delete", key, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return fail("delete", "", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range keys {
		delete(b.objects, key)
	}
	return nil
}

// List implements blob.Bucket.
func (b *Bucket) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for _, k := range []blob.Key{prefix, after} {
			if err := k.ValidPrefix(); err != nil {
				yield(blob.Info{}, fail("list", k, err))
				return
			}
		}
		for _, info := range b.snapshot(prefix, after) {
			if err := ctx.Err(); err != nil {
				yield(blob.Info{}, fail("list", prefix, err))
				return
			}
			if !yield(info, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(blob.Info{}, fail("list", prefix, err))
		}
	}
}

func (b *Bucket) snapshot(prefix, after blob.Key) []blob.Info {
	b.mu.Lock()
	var all []blob.Info
	for key, o := range b.objects {
		if strings.HasPrefix(string(key), string(prefix)) && key > after {
			all = append(all, blob.Info{Key: key, Size: int64(len(o.body)), Tag: o.tag, ModTime: o.mod})
		}
	}
	b.mu.Unlock()
	slices.SortFunc(all, func(x, y blob.Info) int { return strings.Compare(string(x.Key), string(y.Key)) })
	return all
}

func (b *Bucket) lookup(ctx context.Context, op string, key blob.Key) (object, error) {
	if err := key.Valid(); err != nil {
		return object{}, fail(op, key, err)
	}
	if err := ctx.Err(); err != nil {
		return object{}, fail(op, key, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[key]
	if !ok {
		return object{}, fmt.Errorf("%s %s: %w", op, key, blob.ErrNotExist)
	}
	return o, nil
}

// write stores body if check, called under the lock with what is there, agrees.
func (b *Bucket) write(ctx context.Context, op string, key blob.Key, body []byte, check func(object, bool) error) (blob.Tag, error) {
	if err := key.Valid(); err != nil {
		return "", fail(op, key, err)
	}
	if err := ctx.Err(); err != nil {
		return "", fail(op, key, err)
	}
	o := object{body: bytes.Clone(body), tag: tagOf(body), mod: b.now()}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, ok := b.objects[key]
	if err := check(old, ok); err != nil {
		return "", fmt.Errorf("%s %s: %w", op, key, err)
	}
	if !ok {
		if other, clash := b.clash(key); clash {
			return "", fail(op, key, fmt.Errorf("%s is an object: one key may not be the directory of another", other))
		}
	}
	b.objects[key] = o
	return o.tag, nil
}

// clash looks for an object whose key is a directory of key. The other
// direction (key is a directory of an object) would need a sorted map; it is
// found as soon as the writes come in the other order.
func (b *Bucket) clash(key blob.Key) (blob.Key, bool) {
	for i := range len(key) {
		if key[i] != '/' {
			continue
		}
		if _, ok := b.objects[key[:i]]; ok {
			return key[:i], true
		}
	}
	return "", false
}

func tagOf(body []byte) blob.Tag {
	sum := sha256.Sum256(body)
	return blob.Tag(`"` + hex.EncodeToString(sum[:16]) + `"`)
}

func fail(op string, key blob.Key, err error) error {
	return &blob.Error{Op: op, Bucket: "memory", Key: key, Err: err}
}
