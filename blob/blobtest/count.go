package blobtest

import (
	"context"
	"maps"
	"sync"

	"github.com/celler/celler/blob"
)

// Counter is a bucket that counts the calls made through it.
type Counter struct {
	blob.Bucket

	mu    sync.Mutex // guards calls and bytes
	calls map[string]int
	bytes map[string]int64
}

// Count wraps b in a Counter.
func Count(b blob.Bucket) *Counter {
	c := &Counter{calls: make(map[string]int), bytes: make(map[string]int64)}
	c.Bucket = blob.Observe(b, func(_ context.Context, call blob.Call) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.calls[call.Op]++
		c.bytes[call.Op] += call.Bytes
	})
	return c
}

// Calls returns how often each operation, named as in blob.Call.Op, was called.
// A get_range counts once its reader is closed.
func (c *Counter) Calls() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.calls)
}

// Total returns the number of all calls.
func (c *Counter) Total() int {
	n := 0
	for _, calls := range c.Calls() {
		n += calls
	}
	return n
}

// Bytes returns the body bytes moved by one operation.
func (c *Counter) Bytes(op string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes[op]
}

// Reset sets all counts to zero.
func (c *Counter) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.calls)
	clear(c.bytes)
}
