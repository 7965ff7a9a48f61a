package main

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is a TCP proxy that counts what passes, and if it is told to is as narrow and as
// long as a line to elsewhere.
type link struct {
	addr     string
	up, down atomic.Int64 // bytes passed, away from the client and towards it
	ln       net.Listener
	wg       sync.WaitGroup
}

// shape is one direction of a link, shared by all connections.
type shape struct {
	rate  float64       // bytes per second; 0 = no limit
	delay time.Duration // one way
	count *atomic.Int64

	mu   sync.Mutex
	free time.Time // when the line has sent what it was given; guarded by mu
}

// newLink forwards to a server until ctx ends.
func newLink(ctx context.Context, to string, rate float64, delay time.Duration) (*link, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{addr: ln.Addr().String(), ln: ln}
	up := &shape{rate: rate, delay: delay, count: &l.up}
	down := &shape{rate: rate, delay: delay, count: &l.down}
	l.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() { l.forward(ctx, c, to, up, down) })
		}
	})
	return l, nil
}

// close ends the link; its connections end with the server or the client.
func (l *link) close() { _ = l.ln.Close() }

func (l *link) forward(ctx context.Context, c net.Conn, to string, up, down *shape) {
	defer c.Close()
	var d net.Dialer
	s, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer s.Close()
	var wg sync.WaitGroup
	wg.Go(func() { up.copy(s, c); _ = s.(*net.TCPConn).CloseWrite() })
	wg.Go(func() { down.copy(c, s); _ = c.(*net.TCPConn).CloseWrite() })
	wg.Wait()
}

// parcel is bytes on the line.
type parcel struct {
	data []byte
	at   time.Time // of arrival
}

func (s *shape) copy(to io.Writer, from io.Reader) {
	if s.rate == 0 {
		_, _ = io.Copy(to, io.TeeReader(from, counter{s.count})) // its end is the connection's
		return
	}
	line := make(chan parcel, 256)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(line)
	wg.Go(func() {
		broken := false
		for p := range line {
			time.Sleep(time.Until(p.at))
			if !broken {
				_, err := to.Write(p.data)
				broken = err != nil
			}
		}
	})
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			s.count.Add(int64(n))
			line <- parcel{append([]byte(nil), buf[:n]...), s.send(n)}
		}
		if err != nil {
			return
		}
	}
}

// send takes the line for n bytes and returns when the last of them arrives. It returns
// when the line is nearly free, so that what is under way is bounded.
func (s *shape) send(n int) time.Time {
	s.mu.Lock()
	now := time.Now()
	if s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(time.Duration(float64(n) / s.rate * float64(time.Second)))
	free := s.free
	s.mu.Unlock()
	time.Sleep(time.Until(free) - 5*time.Millisecond)
	return free.Add(s.delay)
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
