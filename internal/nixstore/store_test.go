package nixstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/celler/celler/nix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func diff(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(nix.StorePath{}, nix.Hash{}, nix.Signature{}), cmpopts.EquateEmpty())
}

// TestVersions asks everything of daemons of every version we claim to speak,
// and of one from the future.
func TestVersions(t *testing.T) {
	paths, infos := mkInfos(t, 40)
	absent := mkPath(t, 0, 0, 1)
	for _, minor := range []uint64{21, 22, 25, 26, 27, 29, 32, 33, 34, 35, 37, 38, 39, 200} {
		t.Run(fmt.Sprint(minor), func(t *testing.T) {
			f := &fakeDaemon{minor: minor, infos: infos, noise: true}
			s := mkStore(t, f)

			info, err := s.PathInfo(t.Context(), paths[7])
			if err != nil {
				t.Fatal(err)
			}
			if d := diff(infos[paths[7].String()], info); d != "" {
				t.Error(d)
			}
			if _, err := s.PathInfo(t.Context(), absent); !errors.Is(err, ErrNotValid) || !strings.Contains(err.Error(), absent.String()) {
				t.Errorf("absent path: %v", err)
			}
			for p, want := range map[nix.StorePath]bool{paths[3]: true, absent: false} {
				if valid, err := s.Valid(t.Context(), p); err != nil || valid != want {
					t.Errorf("valid %v: %v, %v", p, valid, err)
				}
			}
			valid, err := s.ValidPaths(t.Context(), append([]nix.StorePath{absent}, paths...))
			if err != nil {
				t.Fatal(err)
			}
			if d := diff(unique(paths), valid); d != "" {
				t.Error(d)
			}
			if p, err := s.PathFromHashPart(t.Context(), paths[5].HashPart()); err != nil || p != paths[5] {
				t.Errorf("path from hash part: %v, %v", p, err)
			}
			if _, err := s.PathFromHashPart(t.Context(), absent.HashPart()); !errors.Is(err, ErrNotValid) {
				t.Errorf("path from the hash part of an absent path: %v", err)
			}
			if err := s.AddTempRoot(t.Context(), paths...); err != nil {
				t.Error(err)
			}
			closure, err := s.Closure(t.Context(), []nix.StorePath{paths[20]})
			if err != nil {
				t.Fatal(err)
			}
			wantClosure(t, closure, paths[:21])
		})
	}
}

// TestDaemonErrors: the daemon refuses one of many pipelined requests. The error
// arrives with its text, and the connection stays in step.
func TestDaemonErrors(t *testing.T) {
	paths, infos := mkInfos(t, 600)
	for _, minor := range []uint64{25, 26, 38} {
		f := &fakeDaemon{minor: minor, infos: infos, noise: true, refuse: map[string]string{
			paths[300].String(): "\x1b[31;1merror:\x1b[0m the store is\n  on fire\x07",
		}}
		s := mkStore(t, f)
		for range 3 {
			_, err := s.PathInfos(t.Context(), paths)
			e, is := errors.AsType[*DaemonError](err)
			if !is || e.Message != "the store is on fire" {
				t.Fatalf("1.%d: got error %#v, %v", minor, e, err)
			}
			if minor >= 26 && (len(e.Traces) != 1 || e.Traces[0] != "while testing") {
				t.Errorf("1.%d: traces %q", minor, e.Traces)
			}
			info, err := s.PathInfo(t.Context(), paths[7])
			if err != nil {
				t.Fatal(err)
			}
			if d := diff(infos[paths[7].String()], info); d != "" {
				t.Fatal(d)
			}
		}
	}
}

// TestLastWords: the daemon refuses a request and hangs up without reading the
// others. What it said must not be lost to the broken pipe.
func TestLastWords(t *testing.T) {
	paths, infos := mkInfos(t, 5000)
	f := &fakeDaemon{minor: 38, infos: infos, refuse: map[string]string{paths[1].String(): "too much for me"}}
	socket := listen(t, func(nc net.Conn) {
		f.serve(nc, writerFunc(func(b []byte) (int, error) {
			n, err := nc.Write(b)
			if binary.LittleEndian.Uint64(b) == msgError {
				_ = nc.Close()
			}
			return n, err
		}))
	})
	for range 20 {
		s := mustOpen(t, socket)
		_, err := s.PathInfos(t.Context(), paths)
		if e, is := errors.AsType[*DaemonError](err); !is || e.Message != "too much for me" {
			t.Fatalf("got error %v", err)
		}
		if _, err := s.PathInfo(t.Context(), paths[0]); err == nil {
			t.Error("the connection is still used")
		}
	}
}

// record runs a session against a fake daemon and returns what the daemon sent
// in it.
func record(t testing.TB, f *fakeDaemon, session func(*Store) error) []byte {
	t.Helper()
	var sent bytes.Buffer
	done := make(chan struct{})
	socket := listen(t, func(nc net.Conn) {
		defer close(done)
		f.serve(nc, io.MultiWriter(nc, &sent))
	})
	s := mustOpen(t, socket)
	if err := session(s); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	return sent.Bytes()
}

// replay answers a client with recorded bytes whatever it asks, hangs up, and
// reads until the client has hung up too.
func replay(b *[]byte, mu *sync.Mutex) func(net.Conn) {
	return func(nc net.Conn) {
		mu.Lock()
		text := *b
		mu.Unlock()
		_, _ = nc.Write(text)
		_ = nc.(*net.UnixConn).CloseWrite()
		_, _ = io.Copy(io.Discard, nc)
	}
}

// TestHangUps cuts a session at every byte. There must be an error, it must say
// that the daemon hung up, and it must stay.
func TestHangUps(t *testing.T) {
	paths, infos := mkInfos(t, 3)
	session := func(s *Store) error {
		_, err := s.Closure(t.Context(), paths[2:])
		return err
	}
	for _, minor := range []uint64{21, 38} {
		whole := record(t, &fakeDaemon{minor: minor, infos: infos, noise: true}, session)
		var text []byte
		var mu sync.Mutex // guards text
		socket := listen(t, replay(&text, &mu))
		for n := range len(whole) + 1 {
			mu.Lock()
			text = whole[:n]
			mu.Unlock()
			s, err := Open(t.Context(), Options{Remote: "unix://" + socket})
			if err == nil {
				err = session(s)
				if err != nil {
					if again := session(s); again == nil {
						t.Errorf("1.%d cut at %d: the error is forgotten", minor, n)
					}
				}
				_ = s.Close()
			}
			if n == len(whole) {
				if err != nil {
					t.Errorf("1.%d, not cut: %v", minor, err)
				}
			} else if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "hung up") {
				t.Fatalf("1.%d cut at %d of %d: %v", minor, n, len(whole), err)
			}
		}
	}
}

// TestLengths puts an enormous number in the place of every number and every
// piece of text of a session. Nothing may hang, panic or allocate much.
func TestLengths(t *testing.T) {
	paths, infos := mkInfos(t, 3)
	session := func(s *Store) error {
		_, err := s.Closure(t.Context(), paths[2:])
		return err
	}
	whole := record(t, &fakeDaemon{minor: 38, infos: infos, noise: true}, session)
	var text []byte
	var mu sync.Mutex // guards text
	socket := listen(t, replay(&text, &mu))
	survived := 0
	for at := 0; at+8 <= len(whole); at += 8 {
		for _, n := range []uint64{1 << 63, 1<<64 - 1, 1<<64 - 8, 1 << 40, 3 << 20, 1 << 31} {
			b := bytes.Clone(whole)
			binary.LittleEndian.PutUint64(b[at:], n)
			mu.Lock()
			text = b
			mu.Unlock()
			s, err := Open(t.Context(), Options{Remote: "unix://" + socket})
			if err == nil {
				err = session(s)
				_ = s.Close()
			}
			if err == nil {
				survived++ // it replaced something nobody looks at
			}
		}
	}
	if survived == 0 || survived > len(whole)/8*6/2 {
		t.Errorf("%d of %d damaged sessions went unnoticed", survived, len(whole)/8*6)
	}
}

func TestHandshakeRefuses(t *testing.T) {
	le := func(ns ...uint64) (b []byte) {
		for _, n := range ns {
			b = appendUint64(b, n)
		}
		return b
	}
	for want, text := range map[string][]byte{
		"magic":                           []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"protocol 1.21 or later":          le(magicDaemon, 1<<8|20),
		"found 2.38":                      le(magicDaemon, 2<<8|38),
		"at most 256 features":            le(magicDaemon, 1<<8|38, 1<<40),
		"a message, found tag 0x7":        le(magicDaemon, 1<<8|21, 7),
		"a message, found tag 0x64617461": le(magicDaemon, 1<<8|21, msgRead, 100),
		"at most 1024 traces":             append(appendString(appendUint64(appendString(le(magicDaemon, 1<<8|26, msgError), "Error"), 0), "Error"), append(appendString(nil, "x"), le(0, 1<<50)...)...),
		"disk full":                       appendError(le(magicDaemon, 1<<8|26), "disk full", 26),
	} {
		mu := &sync.Mutex{}
		socket := listen(t, replay(&text, mu))
		s, err := Open(t.Context(), Options{Remote: "unix://" + socket})
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), socket) {
			t.Errorf("%s: got error %v", want, err)
		}
	}
}

// TestForeignPaths: the daemon names paths of another store, or none.
func TestForeignPaths(t *testing.T) {
	p := mkPath(t, 1)
	for want, text := range map[string]string{
		"a reference in /nix/store": "/gnu/store/" + p.Base(),
		"a reference, found":        "/nix/store/../../etc/passwd",
	} {
		socket := listen(t, func(nc net.Conn) {
			f := &fakeDaemon{minor: 38}
			f.serve(nc, writerFunc(func(b []byte) (int, error) {
				// The answer to QueryPathInfo of an absent path is LAST, 0: replace it.
				if len(b) == 16 && binary.LittleEndian.Uint64(b) == msgLast {
					b = appendUint64(appendUint64(nil, msgLast), 1)
					b = appendString(b, "")
					b = appendString(b, strings.Repeat("0", 64))
					b = appendStrings(b, []string{text})
				}
				return nc.Write(b)
			}))
		})
		s := mustOpen(t, socket)
		_, err := s.PathInfo(t.Context(), p)
		if e, is := errors.AsType[*ProtocolError](err); !is || !strings.Contains(e.Error(), want) {
			t.Errorf("%s: got error %v", want, err)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestCancel: the daemon never answers.
func TestCancel(t *testing.T) {
	asked := make(chan struct{}, 1)
	socket := listen(t, func(nc net.Conn) {
		f := &fakeDaemon{minor: 38}
		f.serve(nc, writerFunc(func(b []byte) (int, error) {
			if len(b) == 16 && binary.LittleEndian.Uint64(b) == msgLast {
				asked <- struct{}{}
				return len(b), nil
			}
			return nc.Write(b)
		}))
	})
	p := mkPath(t, 1)

	s := mustOpen(t, socket)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("user pressed ^C")
	go func() {
		<-asked
		cancel(why)
	}()
	if _, err := s.PathInfo(ctx, p); !errors.Is(err, why) {
		t.Errorf("got error %v", err)
	}
	if _, err := s.PathInfo(t.Context(), p); err == nil {
		t.Error("the connection is still used")
	}

	s = mustOpen(t, socket)
	if _, err := s.PathInfo(ctx, p); !errors.Is(err, why) {
		t.Errorf("with a context that has ended: %v", err)
	}

	// Close hangs up on a call that waits.
	s = mustOpen(t, socket)
	go func() {
		<-asked
		_ = s.Close()
	}()
	if _, err := s.PathInfo(t.Context(), p); err == nil {
		t.Error("an answer from a closed store")
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := s.PathInfo(t.Context(), p); err == nil {
		t.Error("an answer from a closed store")
	}

	ctx, stop := context.WithTimeout(t.Context(), time.Millisecond)
	defer stop()
	mute := listen(t, func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) })
	if _, err := Open(ctx, Options{Remote: "unix://" + mute}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("handshake with a mute daemon: %v", err)
	}
}

func TestParallel(t *testing.T) {
	paths, infos := mkInfos(t, 100)
	s := mkStore(t, &fakeDaemon{minor: 38, infos: infos})
	var wg sync.WaitGroup
	for i := range paths {
		wg.Go(func() {
			info, err := s.PathInfo(t.Context(), paths[i])
			if err != nil || diff(infos[paths[i].String()], info) != "" {
				t.Errorf("%v: %v, %v", paths[i], info, err)
			}
		})
	}
	wg.Wait()
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"error: \x1b[31;1mx\x1b[0m":      "x",
		"\x1b[31;1merror:\x1b[0m a\n\tb": "a b",
		"\x1b":                           "",
		"\x1b[":                          "",
		"\x1b[12":                        "",
		"a\x1b]b\x07c":                   "a]bc",
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: %q, expected %q", in, got, want)
		}
	}
}
