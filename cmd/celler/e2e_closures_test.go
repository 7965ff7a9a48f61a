//go:build e2e

package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// questions is a proxy that counts what pushers ask.
type questions struct {
	mu    sync.Mutex // guards what follows
	calls map[string]int
	paths []int  // that each question about closures was about
	once  func() // happens before the next commit; nil: nothing
}

func (q *questions) take() (each int, paths []int, calls int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, n := range q.calls {
		calls += n
	}
	each, paths = q.calls["/_api/v1/get-missing-paths"], q.paths
	q.calls, q.paths = map[string]int{}, nil
	return each, paths, calls
}

func countQuestions(t *testing.T, endpoint string) (string, *questions) {
	t.Helper()
	to, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	q := &questions{calls: map[string]int{}}
	proxy := httputil.NewSingleHostReverseProxy(to)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q.mu.Lock()
		q.calls[r.URL.Path]++
		var once func()
		if strings.HasSuffix(r.URL.Path, "/commit") {
			once, q.once = q.once, nil
		}
		q.mu.Unlock()
		if once != nil {
			once()
		}
		if strings.HasPrefix(r.URL.Path, "/_api/v1/delta/") && strings.HasSuffix(r.URL.Path, "/paths") {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			q.mu.Lock()
			q.paths = append(q.paths, len(body)/20)
			q.mu.Unlock()
		}
		proxy.ServeHTTP(w, r)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String(), q
}

// TestE2EClosures pushes a closure of more than sixty paths, the same again, and a new root
// above it, and counts what is asked.
func TestE2EClosures(t *testing.T) {
	r := newRig(t)
	s := r.serve(t, filepath.Join(r.dir, "bucket"), filepath.Join(r.dir, "local"), "")
	front, q := countQuestions(t, s.endpoint)
	r.login(t, front)
	key := r.cache(t, front, "ci", "--public")
	build := func(args ...string) (string, []string) {
		t.Helper()
		top := strings.TrimSpace(r.run(t, "nix-build", append([]string{"testdata/e2e/layers.nix", "--no-out-link", "--argstr", "salt", t.Name()}, args...)...))
		return top, strings.Fields(r.run(t, "nix-store", "-qR", top))
	}
	root, paths := build()
	if first := r.pushJSON(t, "ci", root); first.Pushed != len(paths) || len(paths) < 60 {
		t.Fatalf("first push %+v of %d paths", first, len(paths))
	}
	q.take()

	again := r.pushJSON(t, "ci", root)
	each, asked, calls := q.take()
	if again.Pushed != 0 || again.Present != len(paths) || each != 0 || len(asked) != 1 || asked[0] != 1 || calls != 2 {
		t.Errorf("the same again: %+v, with %d requests, questions about %v paths and %d about each; want one about one", again, calls, asked, each)
	}

	above, all := build("--argstr", "above", "a")
	third := r.pushJSON(t, "ci", above)
	each, asked, _ = q.take()
	total := 0
	for _, n := range asked {
		total += n
	}
	if third.Pushed != 2 || third.Present < len(paths) || each != 0 || len(asked) != 3 || total != 5 { // the two, root, and two layers that they refer to
		t.Errorf("a new root: %+v, with questions about %v paths and %d about each", third, asked, each)
	}

	// A path of the closure is deleted: it is found to be missing, and only that is pushed.
	r.run(t, r.celler, "path", "delete", "ci", paths[10])
	q.take()
	healed := r.pushJSON(t, "ci", above)
	if each, asked, _ = q.take(); healed.Pushed != 1 || healed.Failed != 0 || each != 1 {
		t.Errorf("a path was deleted: %+v, with questions about %v paths and %d about each", healed, asked, each)
	}
	r.remove(t, all)
	r.run(t, "nix-store", "-r", above, "--option", "substituters", s.endpoint+"/ci", "--option", "trusted-public-keys", key, "-j", "0")

	// What upstream caches have is left out, and does not make it longer.
	secret := filepath.Join(r.dir, "upstream.secret")
	r.run(t, "nix-store", "--generate-binary-cache-key", "upstream-1", secret, secret+".pub")
	r.run(t, "nix", append([]string{"store", "sign", "-k", secret}, paths[:20]...)...)
	r.run(t, r.celler, "cache", "create", "own", "--upstream-cache-key-name=upstream-1")
	if own := r.pushJSON(t, "own", root); own.Pushed != len(paths)-20 {
		t.Errorf("with an upstream cache: %+v of %d paths", own, len(paths))
	}
	q.take()
	own := r.pushJSON(t, "own", root)
	if each, asked, _ = q.take(); own.Pushed != 0 || own.Present != len(paths)-20 || each != 0 || len(asked) != 1 || asked[0] != 1 {
		t.Errorf("the same again, with an upstream cache: %+v, with questions about %v paths and %d about each", own, asked, each)
	}
	r.remove(t, all)
}

// TestE2EClosureWithdrawn deletes a path after it was said to be there, and before what refers
// to it is committed.
func TestE2EClosureWithdrawn(t *testing.T) {
	for _, rule := range []string{"accept", "refuse"} {
		t.Run(rule, func(t *testing.T) {
			r := newRig(t)
			s := r.serve(t, filepath.Join(r.dir, "bucket"), filepath.Join(r.dir, "local"), "", "CELLER_ABSENT_REFERENCES="+rule)
			front, q := countQuestions(t, s.endpoint)
			r.login(t, front)
			key := r.cache(t, front, "ci", "--public")
			build := func(args ...string) string {
				t.Helper()
				return strings.TrimSpace(r.run(t, "nix-build", append([]string{"testdata/e2e/layers.nix", "--no-out-link", "--argstr", "salt", t.Name()}, args...)...))
			}
			root := build()
			r.pushJSON(t, "ci", root)
			above := build("--argstr", "above", "a")
			paths := strings.Fields(r.run(t, "nix-store", "-qR", above))
			q.once = func() {
				if out, err := r.try(t.Context(), r.celler, "path", "delete", "ci", root); err != nil {
					t.Error(out, err)
				}
			}
			q.take()
			done := r.pushJSON(t, "ci", above)
			if each, asked, _ := q.take(); done.Pushed != 3 || done.Failed != 0 || each != 1 || len(asked) != 3 {
				t.Errorf("%+v, questions about %v paths and %d about each; want the deleted one to be pushed with the two", done, asked, each)
			}
			r.remove(t, paths)
			r.run(t, "nix-store", "-r", above, "--option", "substituters", s.endpoint+"/ci", "--option", "trusted-public-keys", key, "-j", "0")
			r.remove(t, paths)
		})
	}
}
