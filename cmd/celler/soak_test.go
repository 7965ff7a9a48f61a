//go:build soak

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// soak is one run: what is broken while clients work, and how often it was.
type soak struct {
	*soakRig
	store  *soakStore
	keeper *soakKeeper
	tools  *soakProxy // between what runs once and the bucket

	mu     sync.Mutex // guards below
	count  map[string]int
	fates  map[string]int // how many commands of a kind have met theirs
	strays []string       // how commands ended that nobody killed
	events []string       // what was broken when
}

func (s *soak) add(what string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[what] += n
}

func (s *soak) counted(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[what]
}

// happened takes note of what was broken, for whoever looks at a failure.
func (s *soak) happened(format string, args ...any) {
	at := s.store.history.now().Round(time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf("%v: ", at)+fmt.Sprintf(format, args...))
}

const soakClients = 20

// TestSoak lets clients push, read and delete through three servers on one S3 server,
// and breaks what can break meanwhile:
//
//	servers       killed; stopped while the log is truncated below what they have
//	compactors    killed; stopped in the middle of a round, and continued
//	collectors    likewise
//	connections   to the bucket cut in mid-request and mid-answer, or dark for seconds
//	clocks        of every process off by hours or years, another offset at every start
//
// Afterwards the histories must be linearizable, and a server that has nothing but the
// bucket must have every path that is live or pinned, byte for byte.
func TestSoak(t *testing.T) {
	span, err := time.ParseDuration(os.Getenv("CELLER_TEST_SOAK_TIME"))
	if err != nil {
		t.Fatalf("CELLER_TEST_SOAK_TIME: %v", err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, for %v", seed, span)
	s := newSoak(t, seed)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { defer cancel(); s.last(t.Context(), span) })
	for i := range soakClients {
		c := &soakClient{soakStore: s.store, id: i, rng: rand.New(rand.NewPCG(seed, uint64(100+i))), http: s.http, shy: map[*soakServer]time.Duration{}}
		wg.Go(func() { c.run(ctx) })
	}
	wg.Go(func() { s.cut(ctx) })
	wg.Go(func() { s.compact(ctx) })
	wg.Go(func() { s.collect(ctx) })
	wg.Go(func() { s.keeper.run(ctx) })
	wg.Go(func() { s.watchFloor(ctx) })
	wg.Go(func() { s.watchPacks(ctx) })
	wg.Go(func() { s.breakServers(ctx) })
	wg.Wait()
	s.finish(t)
	s.report(t, span)
}

func newSoak(t *testing.T, seed uint64) *soak {
	r := newSoakRig(t, seed)
	s := &soak{soakRig: r, count: map[string]int{}, fates: map[string]int{}, tools: newSoakProxy(t, r.s3, seed+9)}
	s.store = &soakStore{rig: r, t: t, history: newSoakHistory(), cache: "soak", versions: map[string]string{}, faults: map[string]int{}}
	for i := range 3 {
		server := &soakServer{
			rig: r, name: fmt.Sprint("server", i), addr: soakAddr(t), local: filepath.Join(r.dir, fmt.Sprint("local", i)),
			proxy: newSoakProxy(t, r.s3, seed+uint64(i)),
		}
		s.store.servers = append(s.store.servers, server)
		t.Cleanup(func() {
			server.signal(syscall.SIGCONT)
			server.end(syscall.SIGKILL)
			if t.Failed() {
				server.keepLog(t)
			}
		})
		if err := server.start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.create(t, "soak", `"Global"`)
	s.create(t, "fading", fmt.Sprintf(`{"Period":%d}`, int(soakRetention/time.Second)))
	s.keeper = newSoakKeeper(s.store, seed+50, s.add)
	return s
}

func (s *soak) create(t *testing.T, cache, retention string) {
	t.Helper()
	c := &soakClient{soakStore: s.store, http: s.http}
	header := map[string]string{"Content-Type": "application/json"}
	body := `{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`
	res, text, err := c.call(http.MethodPost, s.store.servers[0], "/_api/v1/cache-config/"+cache, []byte(body), header)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("create cache: %v, %s", err, text)
	}
	res, text, err = c.call(http.MethodPatch, s.store.servers[0], "/_api/v1/cache-config/"+cache, []byte(`{"retention_period":`+retention+`}`), header)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("configure cache: %v, %s", err, text)
	}
}

// pause waits; it returns false if there is no time left.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// cut breaks a connection of some process about once a second.
func (s *soak) cut(ctx context.Context) {
	proxies := []*soakProxy{s.tools}
	for _, server := range s.store.servers {
		proxies = append(proxies, server.proxy)
	}
	for pause(ctx, s.rng.span(200*time.Millisecond, 1500*time.Millisecond)) {
		proxies[s.rng.n(len(proxies))].arm(soakCut(s.rng.n(int(soakCuts))))
	}
	for _, p := range proxies {
		p.calm()
	}
}

// compact performs rounds as a timer would, two of them at once now and then. Some
// are killed, and some stopped until another has had a round.
func (s *soak) compact(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for pause(ctx, s.rng.span(300*time.Millisecond, 1500*time.Millisecond)) {
		if s.rng.n(6) == 0 {
			wg.Go(func() { s.once(ctx, "compactor", s.compactArgs()...) })
		}
		s.once(ctx, "compactor", s.compactArgs()...)
	}
}

// collect collects garbage in the same manner. Each of two that run at once has an
// index of its own, which it keeps.
func (s *soak) collect(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for pause(ctx, s.rng.span(500*time.Millisecond, 2*time.Second)) {
		if s.rng.n(4) == 0 {
			wg.Wait()
			wg.Go(func() { s.once(ctx, "collector", s.collectArgs("other")...) })
		}
		s.once(ctx, "collector", s.collectArgs("one")...)
	}
}

func (s *soak) collectArgs(index string) []string {
	return []string{
		"gc", "run", "--json", "--bucket", bucketAt(s.tools.addr()), "--cache-dir", filepath.Join(s.dir, "collector-"+index),
		"--garbage-collection.nar-grace=" + soakNarGrace.String(), "--garbage-collection.reader-grace=6s", "--compact.log-retention=0s",
	}
}

func (s *soak) compactArgs() []string {
	return []string{"compact", "--steal", "--json", "--bucket", bucketAt(s.tools.addr()), "--compact.log-retention=0s", "--compact.keep-segments=20"}
}

// once runs a command with the clock off, and sometimes kills it or stops it for a while.
func (s *soak) once(ctx context.Context, what string, args ...string) {
	// The end of the test is no reason for it to end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	var out, stderr strings.Builder
	cmd := s.command(ctx, s.rng.offset(), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // says what it waits for
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		s.store.bad("%s: %v", what, err)
		return
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		s.ended(what, out.String(), stderr.String(), err)
		return
	case <-time.After(s.rng.span(20*time.Millisecond, 400*time.Millisecond)):
	}
	switch s.fate(what) {
	case 1:
		cmd.Process.Kill()
		<-done
		s.add(what+"s killed", 1)
		return
	case 3:
		cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(s.rng.span(2*time.Second, 6*time.Second))
		cmd.Process.Signal(syscall.SIGCONT)
		s.add(what+"s stopped", 1)
	}
	err := <-done
	s.ended(what, out.String(), stderr.String(), err)
}

// fate numbers the commands of a kind from 0 to 4, over and over.
func (s *soak) fate(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fates[what]++
	return (s.fates[what] - 1) % 5
}

// ended takes note of what a command did. It may fail, because its connections break;
// it may not panic.
func (s *soak) ended(what, out, stderr string, err error) {
	if strings.Contains(stderr, "SIGQUIT") {
		s.store.bad("%s did not end within a minute: %s", what, stderr)
		return
	}
	if strings.Contains(stderr, "panic:") || strings.Contains(stderr, "fatal error:") {
		s.store.bad("%s: %s", what, stderr)
	}
	if err != nil {
		s.add(what+"s that gave up", 1)
		s.mu.Lock()
		s.strays = append(s.strays, fmt.Sprintf("%s: %v: %s %s", what, err, strings.TrimSpace(stderr), strings.TrimSpace(out)))
		s.mu.Unlock()
		return
	}
	s.add(what+" rounds", 1)
	report := map[string]any{}
	if json.Unmarshal([]byte(out), &report) != nil {
		return
	}
	for field, name := range map[string]string{
		"flushes": "flushes", "merges": "merges", "slots_deleted": "slots deleted by compactors",
		"removed_paths": "paths expired by collectors", "removed_nars": "NARs removed by collectors", "condemned_chunks": "chunks condemned by collectors",
		"rewritten_packs": "packs rewritten by collectors", "deleted_objects": "objects deleted by collectors", "orphans": "orphans deleted by collectors",
	} {
		if n, ok := report[field].(float64); ok {
			s.add(name, int(n))
		}
	}
}

// watchFloor counts how often the log was truncated, by whomever.
func (s *soak) watchFloor(ctx context.Context) {
	floor := s.floor()
	for pause(ctx, 50*time.Millisecond) {
		if now := s.floor(); now > floor {
			s.add("truncations", 1)
			floor = now
		} else if now != 0 && now < floor {
			s.store.bad("the floor went from %d to %d", floor, now)
		}
	}
}

// watchPacks counts the packs that left the bucket, whoever deleted them.
func (s *soak) watchPacks(ctx context.Context) {
	seen := map[string]bool{}
	for pause(ctx, 200*time.Millisecond) {
		names, _ := filepath.Glob(filepath.Join(s.root, "celler", "soak", "pack", "*", "*"))
		now := map[string]bool{}
		for _, name := range names {
			now[name] = true
		}
		for name := range seen {
			if !now[name] {
				s.add("packs deleted", 1)
			}
		}
		seen = now
	}
}

// breakServers does one bad thing to one server after the other, each kind at least
// once if there is time for three.
func (s *soak) breakServers(ctx context.Context) {
	for i := 0; pause(ctx, s.rng.span(500*time.Millisecond, 2500*time.Millisecond)); i++ {
		server := s.store.servers[s.rng.n(3)]
		kind := i
		if i > 2 {
			kind = s.rng.n(6)
		}
		if i > 4 && i%2 == 1 && s.counted("servers stopped across a truncation") == 0 {
			kind = 0 // what needs luck is tried more often
		}
		switch kind {
		case 0, 3:
			s.stop(ctx, server)
		case 1, 4, 5:
			s.kill(ctx, server)
		case 2:
			s.happened("%s cannot reach the bucket", server.name)
			server.proxy.dark.Store(true)
			pause(ctx, s.rng.span(2*time.Second, 9*time.Second))
			server.proxy.dark.Store(false)
			s.happened("%s can reach the bucket", server.name)
			s.add("blackouts", 1)
		}
	}
}

// kill kills a server, sometimes loses its disk, and starts it again.
func (s *soak) kill(ctx context.Context, server *soakServer) {
	s.happened("%s killed", server.name)
	server.end(syscall.SIGKILL)
	s.add("servers killed", 1)
	if s.rng.n(3) == 0 {
		if err := os.RemoveAll(server.local); err != nil {
			s.store.bad("%v", err)
		}
		s.add("disks lost", 1)
	}
	pause(ctx, s.rng.span(0, 2*time.Second))
	// Also at the end of the test, for whoever stops it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	if err := server.start(ctx); err != nil {
		s.store.bad("%v", err)
	}
	s.happened("%s is back", server.name)
}

// stop stops a server until the log begins after what the server has, and wants it
// to find its way back.
func (s *soak) stop(ctx context.Context, server *soakServer) {
	const bootstraps = "celler_wal_bootstraps_total"
	has, err := server.metric("celler_wal_seq")
	before, err2 := server.metric(bootstraps)
	if err != nil || err2 != nil {
		s.store.fault("metrics: no answer")
		return
	}
	s.happened("%s stopped at slot %.0f", server.name, has)
	server.signal(syscall.SIGSTOP)
	s.add("servers stopped", 1)
	across := false
	for began := time.Now(); time.Since(began) < 30*time.Second && !across && pause(ctx, 50*time.Millisecond); {
		across = float64(s.floor()) > has+10 // it may have got a little further before it stopped
	}
	server.signal(syscall.SIGCONT)
	s.happened("%s continued, the log begins at slot %d", server.name, s.floor())
	if !across {
		return
	}
	// It takes a moment to notice where the log begins, and answers until then.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for floor := float64(s.floor()); ; {
		if n, err := server.metric("celler_wal_seq"); err == nil && n+1 >= floor {
			break
		}
		if !pause(ctx, 50*time.Millisecond) {
			s.store.bad("%s was stopped before slot %.0f, and has not found its way there", server.name, floor)
			return
		}
	}
	if err := server.ready(context.WithoutCancel(ctx), time.Minute); err != nil {
		s.store.bad("after it was stopped: %v", err)
		return
	}
	s.happened("%s has found its way back", server.name)
	if n, err := server.metric(bootstraps); err == nil && n > before {
		s.add("servers stopped across a truncation", 1)
	}
}
