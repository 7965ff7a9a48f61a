//go:build e2e

package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The end-to-end test: a closure built by a real Nix is pushed by the real
// binary, deleted from the store, and substituted back by the unmodified Nix
// with signatures required. "make e2e" builds the binary, installs what is
// missing and sets the variables below.

func TestE2EPushDeleteSubstitute(t *testing.T) {
	buckets(t, func(t *testing.T, r *rig, bucket string, env []string) {
		s := r.serve(t, bucket, filepath.Join(r.dir, "local1"), "", env...)
		r.login(t, s.endpoint)
		key := r.cache(t, s.endpoint, "ci", "--public")
		top, paths, sums := r.build(t, t.Name())
		t.Cleanup(func() { r.try(context.Background(), "nix-store", append([]string{"--delete"}, paths...)...) })
		r.run(t, r.celler, "push", "ci", top)
		r.remove(t, paths)
		r.substitute(t, s.endpoint, "ci", key, top, sums)

		t.Run("a wrong key is refused", func(t *testing.T) {
			r.remove(t, paths)
			wrong := "ci:" + base64.StdEncoding.EncodeToString(make([]byte, 32))
			if _, err := r.try(t.Context(), "nix-store", "-r", top, "--option", "substituters", s.endpoint+"/ci",
				"--option", "trusted-public-keys", wrong, "-j", "0"); err == nil {
				t.Error("nix accepted paths whose signature does not verify")
			}
		})
		t.Run("a new server has only the bucket", func(t *testing.T) {
			s.stop(t, syscall.SIGKILL)
			s2 := r.serve(t, bucket, filepath.Join(r.dir, "local2"), "", env...)
			r.substitute(t, s2.endpoint, "ci", key, top, sums)
			r.login(t, s2.endpoint)
			out := r.run(t, r.celler, "push", "ci", top)
			_ = out
			r.remove(t, paths)
			r.substitute(t, s2.endpoint, "ci", key, top, sums)
		})
		r.remove(t, paths)
	})
}

func TestE2EPrivateCacheThroughNetrc(t *testing.T) {
	r := newRig(t)
	s := r.serve(t, filepath.Join(r.dir, "bucket"), filepath.Join(r.dir, "local"), "")
	r.login(t, s.endpoint)
	r.run(t, r.celler, "cache", "create", "priv")
	top, paths, sums := r.build(t, t.Name())
	r.run(t, r.celler, "push", "priv", top)
	r.remove(t, paths)
	key := ""
	for f := range strings.FieldsSeq(r.run(t, r.celler, "cache", "info", "priv")) {
		if strings.HasPrefix(f, "priv:") {
			key = f
		}
	}
	if _, err := r.try(t.Context(), "nix-store", "-r", top, "--option", "substituters", s.endpoint+"/priv",
		"--option", "trusted-public-keys", key, "-j", "0"); err == nil {
		t.Error("a private cache was read without a token")
	}
	r.run(t, r.celler, "use", "priv")
	netrc := filepath.Join(r.dir, "home", ".config", "nix", "netrc")
	if _, err := os.Stat(netrc); err != nil {
		t.Fatalf("celler use wrote no netrc: %v", err)
	}
	r.substitute(t, s.endpoint, "priv", key, top, sums, "--option", "netrc-file", netrc)
	r.remove(t, paths)
}

func TestE2EThreeServersBehindRoundRobin(t *testing.T) {
	buckets(t, func(t *testing.T, r *rig, bucket string, env []string) {
		var ends []string
		for i := range 3 {
			ends = append(ends, r.serve(t, bucket, filepath.Join(r.dir, fmt.Sprint("local", i)), "", env...).endpoint)
		}
		lb := roundRobin(t, ends...)
		r.login(t, lb)
		key := r.cache(t, lb, "ci", "--public")
		topA, pathsA, sumsA := r.build(t, t.Name()+"A")
		r.run(t, r.celler, "push", "ci", topA)
		r.remove(t, pathsA)
		topB, pathsB, sumsB := r.build(t, t.Name()+"B")
		// Push B while A is pulled by two clients into stores of their own.
		var wg sync.WaitGroup
		errs := make(chan error, 3)
		wg.Go(func() {
			_, err := r.try(t.Context(), r.celler, "push", "ci", topB)
			errs <- err
		})
		for i := range 2 {
			wg.Go(func() {
				_, err := r.tryIn(t.Context(), filepath.Join(r.dir, fmt.Sprint("home", i)), "nix", "copy", "--from", lb+"/ci", "--to", filepath.Join(r.dir, fmt.Sprint("client", i)),
					"--option", "trusted-public-keys", key, topA)
				errs <- err
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				t.Error(err)
			}
		}
		r.remove(t, pathsB)
		r.substitute(t, lb, "ci", key, topA, sumsA)
		r.substitute(t, lb, "ci", key, topB, sumsB)
		r.remove(t, append(pathsA, pathsB...))
	})
}

func TestE2EServerKilledInMidPush(t *testing.T) {
	buckets(t, func(t *testing.T, r *rig, bucket string, env []string) {
		local := filepath.Join(r.dir, "local")
		s := r.serve(t, bucket, local, "", env...)
		r.login(t, s.endpoint)
		key := r.cache(t, s.endpoint, "ci", "--public")
		top, paths, sums := r.build(t, t.Name())
		pushed := make(chan error, 1)
		go func() {
			_, err := r.try(t.Context(), r.celler, "push", "ci", top)
			pushed <- err
		}()
		for i := range 3 {
			time.Sleep(time.Duration(400+300*i) * time.Millisecond)
			s.stop(t, syscall.SIGKILL)
			s = r.serve(t, bucket, local, s.addr(), env...)
		}
		if err := <-pushed; err != nil {
			// The client may give up while the server is down; a second push must finish it.
			t.Logf("the push that was cut: %v", err)
			r.run(t, r.celler, "push", "ci", top)
		}
		r.remove(t, paths)
		r.substitute(t, s.endpoint, "ci", key, top, sums)
		r.remove(t, paths)
	})
}
