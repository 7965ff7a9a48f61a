package blob

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"
)

// Call describes one finished call on an observed bucket.
type Call struct {
	Op    string // get, get_if, get_range, create, swap, put, delete, list
	Key   Key    // of delete: the first key; of list: the prefix
	Bytes int64  // body bytes sent or received
	Count int    // of delete: keys; of list: objects yielded; else 1
	Start time.Time
	Dur   time.Duration
	Err   error // the sentinels included
}

// Observe wraps a bucket and reports each call to fn after it ended, on the
// goroutine that made it. A GetRange is reported when its reader is closed,
// with the bytes that were read; a List when the iteration ends.
//
// fn must not block. It is where the node counts requests, observes durations
// and emits spans; blob itself knows nothing of metrics.
func Observe(b Bucket, fn func(context.Context, Call)) Bucket {
	return &observed{b: b, fn: fn}
}

type observed struct {
	b  Bucket
	fn func(context.Context, Call)
}

func (o *observed) report(ctx context.Context, c Call, err error) {
	c.Dur = time.Since(c.Start)
	c.Err = err
	o.fn(ctx, c)
}

func begin(op string, key Key) Call {
	return Call{Op: op, Key: key, Count: 1, Start: time.Now()}
}

func (o *observed) Get(ctx context.Context, key Key) ([]byte, Tag, error) {
	c := begin("get", key)
	body, tag, err := o.b.Get(ctx, key)
	c.Bytes = int64(len(body))
	o.report(ctx, c, err)
	return body, tag, err
}

func (o *observed) GetIf(ctx context.Context, key Key, old Tag) ([]byte, Tag, error) {
	c := begin("get_if", key)
	body, tag, err := o.b.GetIf(ctx, key, old)
	c.Bytes = int64(len(body))
	o.report(ctx, c, err)
	return body, tag, err
}

func (o *observed) GetRange(ctx context.Context, key Key, off, n int64) (io.ReadCloser, error) {
	c := begin("get_range", key)
	r, err := o.b.GetRange(ctx, key, off, n)
	if err != nil {
		o.report(ctx, c, err)
		return nil, err
	}
	return &observedReader{ReadCloser: r, o: o, ctx: ctx, call: c}, nil
}

func (o *observed) Create(ctx context.Context, key Key, body []byte) (Tag, error) {
	c := begin("create", key)
	c.Bytes = int64(len(body))
	tag, err := o.b.Create(ctx, key, body)
	o.report(ctx, c, err)
	return tag, err
}

func (o *observed) Swap(ctx context.Context, key Key, old Tag, body []byte) (Tag, error) {
	c := begin("swap", key)
	c.Bytes = int64(len(body))
	tag, err := o.b.Swap(ctx, key, old, body)
	o.report(ctx, c, err)
	return tag, err
}

func (o *observed) Put(ctx context.Context, key Key, body []byte) (Tag, error) {
	c := begin("put", key)
	c.Bytes = int64(len(body))
	tag, err := o.b.Put(ctx, key, body)
	o.report(ctx, c, err)
	return tag, err
}

func (o *observed) Delete(ctx context.Context, keys ...Key) error {
	c := begin("delete", "")
	c.Count = len(keys)
	if len(keys) > 0 {
		c.Key = keys[0]
	}
	err := o.b.Delete(ctx, keys...)
	o.report(ctx, c, err)
	return err
}

func (o *observed) List(ctx context.Context, prefix, after Key) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		c := begin("list", prefix)
		c.Count = 0
		var last error
		defer func() { o.report(ctx, c, last) }()
		for info, err := range o.b.List(ctx, prefix, after) {
			if last = err; err == nil {
				c.Count++
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// observedReader reports its call once, on Close, which may come while a Read is
// under way.
type observedReader struct {
	io.ReadCloser
	o   *observed
	ctx context.Context //nolint:containedctx // the reader is the rest of the call that had this ctx

	mu     sync.Mutex // guards what follows
	call   Call
	err    error
	closed bool
}

func (r *observedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.call.Bytes += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

func (r *observedReader) Close() error {
	err := r.ReadCloser.Close()
	r.mu.Lock()
	call, failed, again := r.call, r.err, r.closed
	r.closed = true
	r.mu.Unlock()
	if !again {
		r.o.report(r.ctx, call, failed)
	}
	return err
}
