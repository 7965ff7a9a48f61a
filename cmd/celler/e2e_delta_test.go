//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pushJSON pushes and returns the last event, which sums up.
func (r *rig) pushJSON(t *testing.T, args ...string) (done struct {
	Pushed, Present, Failed int
	NarBytes                int64 `json:"nar_bytes"`
	NewBytes                int64 `json:"new_bytes"`
	SentBytes               int64 `json:"sent_bytes"`
},
) {
	t.Helper()
	out := r.run(t, r.celler, append([]string{"push", "--json"}, args...)...)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &done); err != nil {
		t.Fatalf("last event %q: %v", lines[len(lines)-1], err)
	}
	return done
}

// TestE2EDeltaPush pushes a closure, a rebuilt one, and the same to another cache.
func TestE2EDeltaPush(t *testing.T) {
	buckets(t, func(t *testing.T, r *rig, bucket string, env []string) {
		var ends []string
		for i := range 2 {
			ends = append(ends, r.serve(t, bucket, filepath.Join(r.dir, fmt.Sprint("local", i)), "", env...).endpoint)
		}
		lb := roundRobin(t, ends...)
		r.login(t, lb)
		key := r.cache(t, lb, "ci", "--public")
		other := r.cache(t, lb, "other", "--public")
		topA, pathsA, sumsA := r.build(t, t.Name()+"A")
		first := r.pushJSON(t, "ci", topA)
		if first.SentBytes == 0 || first.NewBytes == 0 {
			t.Fatalf("first push %+v: it was not by chunks", first)
		}
		topB, pathsB, sumsB := r.build(t, t.Name()+"B") // one string is another
		second := r.pushJSON(t, "ci", topB)
		if second.NewBytes*5 > second.NarBytes || second.SentBytes*5 > first.SentBytes {
			t.Errorf("of the rebuilt closure %d of %d bytes were new and %d sent, of the first one %d", second.NewBytes, second.NarBytes, second.SentBytes, first.SentBytes)
		}
		third := r.pushJSON(t, "other", topB)
		if third.Pushed == 0 || third.NewBytes != 0 || third.SentBytes*20 > first.SentBytes {
			t.Errorf("pushed to another cache: %+v, of the first time %+v", third, first)
		}
		r.remove(t, append(pathsA, pathsB...))
		r.substitute(t, lb, "ci", key, topA, sumsA)
		r.substitute(t, lb, "other", other, topB, sumsB)
		r.remove(t, append(pathsA, pathsB...))
	})
}

// TestE2EDeltaThroughNginx has a proxy that takes bodies of 1 MB and waits 5 s.
func TestE2EDeltaThroughNginx(t *testing.T) {
	r := newRig(t)
	s := r.serve(t, filepath.Join(r.dir, "bucket"), filepath.Join(r.dir, "local"), "")
	front := r.nginx(t, s.addr(), "client_max_body_size 1m; client_body_timeout 5s; proxy_read_timeout 5s; proxy_send_timeout 5s;")
	r.pushThrough(t, front, s.endpoint)
}

// TestE2EDeltaThroughCuts has a proxy that cuts every tenth request at a random byte.
func TestE2EDeltaThroughCuts(t *testing.T) {
	r := newRig(t)
	s := r.serve(t, filepath.Join(r.dir, "bucket"), filepath.Join(r.dir, "local"), "")
	front, cuts := cutter(t, s.addr())
	r.pushThrough(t, front, s.endpoint)
	if cuts.Load() == 0 {
		t.Error("nothing was cut")
	}
}

// pushThrough pushes a closure and one that was rebuilt through a proxy, and substitutes
// both without it.
func (r *rig) pushThrough(t *testing.T, front, back string) {
	t.Helper()
	r.login(t, back)
	key := r.cache(t, back, "ci", "--public")
	r.login(t, front)
	for _, salt := range []string{"A", "B"} {
		top, paths, sums := r.build(t, t.Name()+salt)
		done := r.pushJSON(t, "ci", top)
		if done.SentBytes == 0 || done.Failed > 0 {
			t.Errorf("closure %s: %+v", salt, done)
		}
		r.remove(t, paths)
		r.substitute(t, back, "ci", key, top, sums)
		r.remove(t, paths)
	}
}

// nginx starts a real one in front of a server, with settings of its own.
func (r *rig) nginx(t *testing.T, to, settings string) string {
	t.Helper()
	addr := freeAddr(t)
	dir := filepath.Join(r.dir, "nginx")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events { }
http { access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
  server { listen %[2]s; %[4]s location / { proxy_pass http://%[3]s; proxy_set_header Host $http_host; } } }
`, dir, addr, to, settings)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/sbin/nginx", "-c", file, "-p", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return "http://" + addr
		}
		if time.Now().After(deadline) {
			t.Fatal("nginx did not start within 30 s")
		}
	}
}

// cutter is a TCP proxy. In about every tenth request it cuts the connection, somewhere
// in the request or in its answer.
func cutter(t *testing.T, to string) (string, *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var cuts atomic.Int64
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(1, 2))
	// left is how many bytes a connection may still carry, of about ten requests.
	left := func() *atomic.Int64 {
		mu.Lock()
		defer mu.Unlock()
		n := new(atomic.Int64)
		n.Store(1000 + rng.Int64N(12<<20))
		return n
	}
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				s, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer s.Close()
				n := left()
				forward := func(to, from net.Conn) {
					defer to.Close()
					defer from.Close()
					buf := make([]byte, 4096)
					for {
						k, err := from.Read(buf)
						if n.Add(-int64(k)) <= 0 {
							cuts.Add(1)
							return
						}
						if _, werr := to.Write(buf[:k]); err != nil || werr != nil {
							return
						}
					}
				}
				var both sync.WaitGroup
				both.Go(func() { forward(s, c) })
				forward(c, s)
				both.Wait()
			})
		}
	})
	return "http://" + ln.Addr().String(), &cuts
}
