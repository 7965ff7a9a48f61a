package nixstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	magicClient = 0x6e697863
	magicDaemon = 0x6478696f

	// protocolMajor and protocolMinor are what we speak. Nothing that came after
	// 1.38 changes the operations used here, and daemons go down to what the
	// client knows.
	protocolMajor = 1
	protocolMinor = 38
	// minMinor is that of Nix 2.3, the oldest still found in the wild.
	minMinor = 21

	maxFeatures = 256
)

// maxUnread is how many bytes of requests may be written while their answers are
// not read. The daemon may be blocked writing answers meanwhile, so this must
// fit into the transport's own buffer: 64 KiB for a pipe, more for a socket.
const maxUnread = 32 << 10

// A conn is one connection to a daemon.
type conn struct {
	transport io.ReadWriteCloser
	closing   func() error  // closes transport, once
	said      func() string // what a spawned daemon wrote to stderr; nil for a socket

	mu    sync.Mutex // guards everything below
	dec   decoder
	out   []byte
	minor uint64
	err   error // why the connection is of no use any more
}

// newConn shakes hands.
func newConn(ctx context.Context, transport io.ReadWriteCloser, said func() string) (*conn, error) {
	c := &conn{transport: transport, closing: sync.OnceValue(transport.Close), said: said}
	c.dec.r = bufio.NewReaderSize(transport, 32<<10)
	err := c.do(ctx, func() error { return c.handshake() })
	if err != nil {
		return nil, fmt.Errorf("shake hands: %w", err)
	}
	return c, nil
}

func (c *conn) handshake() error {
	c.out = appendUint64(c.out, magicClient)
	c.out = appendUint64(c.out, protocolMajor<<8|protocolMinor)
	// Whether writing succeeds does not matter in here: a daemon that is gone
	// cannot be read from either, and what it said before it went is worth more
	// than "broken pipe".
	_ = c.flush()
	d := &c.dec
	if magic := d.uint64(); d.err == nil && magic != magicDaemon {
		d.badf(fmt.Sprintf("magic %#x", magicDaemon), "%#x", magic)
	}
	version := d.uint64()
	if d.err == nil && (version>>8 != protocolMajor || version&0xff < minMinor) {
		d.badf(fmt.Sprintf("protocol %d.%d or later (Nix 2.3)", protocolMajor, minMinor), "%d.%d", version>>8, version&0xff)
	}
	c.minor = min(version&0xff, protocolMinor)
	if c.minor >= 38 {
		c.out = appendUint64(c.out, 0) // we have no features
		_ = c.flush()
		if n := d.uint64(); n > maxFeatures {
			d.badf(fmt.Sprintf("at most %d features", maxFeatures), "%d", n)
		} else {
			for range n {
				d.string("a feature", 1<<10)
			}
		}
	}
	c.out = appendUint64(c.out, 0) // CPU affinity, obsolete
	c.out = appendUint64(c.out, 0) // reserved space, obsolete
	_ = c.flush()
	if c.minor >= 33 {
		d.string("the version of Nix", 1<<10)
	}
	if c.minor >= 35 {
		d.uint64() // whether it trusts us; nothing we ask needs trust
	}
	if d.err != nil {
		return d.err
	}
	return d.messages(c.minor)
}

func (c *conn) flush() error {
	_, err := c.transport.Write(c.out)
	c.out = c.out[:0]
	return err
}

// do runs fn with the connection to itself. If the context ends meanwhile, the
// transport is closed under fn. Any error but the daemon's own ends the
// connection.
func (c *conn) do(ctx context.Context, fn func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.closing() })
	err := fn()
	if !stop() {
		err = context.Cause(ctx) // the answer, if it came, came from a closed connection
		c.dec.fail(err)
	}
	if c.dec.err == nil {
		return err
	}
	return c.broken(err)
}

// broken records why the connection can no longer be used.
func (c *conn) broken(err error) error {
	_ = c.closing()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("nix daemon: hung up: %w", err)
	}
	if c.said != nil {
		if said := c.said(); said != "" {
			err = fmt.Errorf("%w (it said: %s)", err, said)
		}
	}
	c.err = err
	return err
}

func (c *conn) close() error {
	// Not under the lock: a call that waits for the daemon must not keep us from
	// hanging up.
	err := c.closing()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = errClosed
	}
	return err
}

var errClosed = errors.New("nix store: already closed")

// pipeline makes n requests and reads their results in the same order. request
// appends the i-th; result reads its result after the messages. It stops at the
// first error, but not before the answers to what was already asked are read:
// so the connection stays in step, and if the daemon has hung up, its last words
// are heard.
func (c *conn) pipeline(ctx context.Context, n int, request func(i int, dst []byte) []byte, result func(i int, d *decoder) error) error {
	return c.do(ctx, func() error {
		var first, writing error
		sizes := make([]int, 0, min(n, 256)) // of the requests not answered yet
		unread, asked := 0, 0
		for answered := 0; ; answered++ { // one answer each time round
			if unread < maxUnread/4 { // in large steps, to write seldom
				for asked < n && first == nil && (unread < maxUnread/2 || len(sizes) == 0) {
					before := len(c.out)
					c.out = request(asked, c.out)
					sizes = append(sizes, len(c.out)-before)
					unread += len(c.out) - before
					asked++
				}
				if len(c.out) > 0 && writing == nil {
					if writing = c.flush(); writing != nil {
						n = asked
					}
				}
			}
			if answered == asked {
				break
			}
			err := c.dec.messages(c.minor)
			if err == nil {
				err = result(answered, &c.dec)
			}
			if first == nil {
				first = err
			}
			if c.dec.err != nil {
				return first
			}
			unread -= sizes[0]
			sizes = sizes[1:]
		}
		if writing != nil && first == nil {
			c.dec.fail(writing)
			first = c.dec.err
		}
		return first
	})
}
