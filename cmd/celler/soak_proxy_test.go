//go:build soak

package main

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// soakCut is a way to break a connection.
type soakCut int

const (
	cutAnswer  soakCut = iota // in the middle of an answer: some of its bytes arrive
	cutSilence                // the request arrives, of the answer nothing does
	cutRequest                // in the middle of a request
	soakCuts
)

// soakProxy stands between one process and the bucket. It forwards bytes and knows
// nothing of what they mean, and breaks connections at any of them.
type soakProxy struct {
	listener net.Listener
	target   string
	dark     atomic.Bool // takes connections, and answers nothing

	mu     sync.Mutex // guards below
	armed  [soakCuts]bool
	made   [soakCuts]int
	conns  map[net.Conn]bool
	closed bool
	rng    *rand.Rand

	wg sync.WaitGroup
}

func newSoakProxy(t *testing.T, target string, seed uint64) *soakProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &soakProxy{listener: l, target: target, conns: map[net.Conn]bool{}, rng: rand.New(rand.NewPCG(seed, 1))}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *soakProxy) addr() string { return p.listener.Addr().String() }

func (p *soakProxy) close() {
	p.calm()
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// arm breaks, in the given way, the next connection where that is possible.
func (p *soakProxy) arm(how soakCut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed[how] = true
}

// calm breaks no further connection.
func (p *soakProxy) calm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = [soakCuts]bool{}
	p.dark.Store(false)
}

func (p *soakProxy) counts() [soakCuts]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made
}

// hold remembers a connection, so that close can close it.
func (p *soakProxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *soakProxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

func (p *soakProxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.hold(c) {
			p.wg.Go(func() { p.serve(c) })
		}
	}
}

func (p *soakProxy) serve(c net.Conn) {
	defer p.drop(c)
	s, err := net.Dial("tcp", p.target)
	if err != nil || !p.hold(s) {
		return
	}
	defer p.drop(s)
	var up sync.WaitGroup
	up.Go(func() { p.forward(s, c, true) })
	p.forward(c, s, false)
	up.Wait()
}

// forward copies until one side ends, and then tells the other, or until the connection
// is to break here.
func (p *soakProxy) forward(to, from net.Conn, request bool) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		for p.dark.Load() && err == nil {
			time.Sleep(20 * time.Millisecond)
		}
		keep, broken := p.breakAt(n, request)
		_, werr := to.Write(buf[:keep])
		switch {
		case broken:
			// What was let through is to arrive before the reset does.
			time.Sleep(5 * time.Millisecond)
			reset(to, from)
			return
		case err == io.EOF && werr == nil:
			to.(*net.TCPConn).CloseWrite()
			return
		case err != nil || werr != nil:
			reset(to, from)
			return
		}
	}
}

// reset closes both sides at once and lets nothing that is on its way arrive.
func reset(conns ...net.Conn) {
	for _, c := range conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

// breakAt says how many of n bytes pass, and whether the connection breaks after them.
func (p *soakProxy) breakAt(n int, request bool) (keep int, broken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for how := range soakCuts {
		if !p.armed[how] || request != (how == cutRequest) || n < 2 {
			continue
		}
		p.armed[how] = false
		p.made[how]++
		if how == cutSilence {
			return 0, true
		}
		return 1 + p.rng.IntN(n-1), true
	}
	return n, false
}
