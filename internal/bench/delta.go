package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// deltaLine is the line of the slow scenario: 100 Mbit/s, 40 ms there and back.
	deltaLine  = 100e6 / 8
	deltaDelay = 20 * time.Millisecond
	// deltaChanged is the share of 16 KiB blocks that a rebuild changes.
	deltaChanged = 0.05
)

// pushed is what one push took.
type pushed struct {
	wall      float64
	up, down  int64   // on the wire
	server    float64 // processor seconds
	client    float64
	rss       int64 // of the client
	plain     int64 // NAR bytes
	fresh     int64 // of them new to the server; 0 if nobody says
	sent      int64
	paths     int
	requested map[string]float64 // of the bucket
}

// delta pushes by chunks, beside the upload of whole NARs to the same server.
func delta(ctx context.Context, l *lab) error {
	store, err := l.newStore("delta")
	if err != nil {
		return err
	}
	// Packs are not read back, which begins a minute or two after the start and would count
	// for whatever is pushed then.
	s, err := l.serve(ctx, filepath.Join(l.dir, "delta-bucket"), filepath.Join(l.dir, "delta-local"), "CELLER_SCRUB_BYTES_PER_DAY=0")
	if err != nil {
		return err
	}
	for _, c := range []string{"chunks", "whole", "tiny-chunks", "tiny-whole", "slow"} {
		if err := s.createCacheAt(ctx, c, store.dir); err != nil {
			return err
		}
	}
	first, err := store.addTree(ctx, l, "first", l.corpusBytes/2)
	if err != nil {
		return err
	}
	if err := l.deltaFirst(ctx, s, store, first); err != nil {
		return err
	}
	if err := l.deltaTiny(ctx, s, store); err != nil {
		return err
	}
	if err := l.deltaClosure(ctx, s, store); err != nil {
		return err
	}
	return l.deltaSlow(ctx, s, store)
}

// deltaFirst is (a) a first push, (b) the same again, (c) that of a rebuild. The upload of
// whole NARs comes first, to a cache of other content, so that neither finds the other's.
func (l *lab) deltaFirst(ctx context.Context, s *server, store *nixStore, first string) error {
	other, err := store.change(ctx, l, "other", first, 1)
	if err != nil {
		return err
	}
	whole, err := l.pushStore(ctx, s, store, "whole", other, true, nil)
	if err != nil {
		return err
	}
	a, err := l.pushStore(ctx, s, store, "chunks", first, false, nil)
	if err != nil {
		return err
	}
	ms := func(p pushed) float64 { return p.server * 1000 / (float64(p.plain) / 1e6) }
	ratio := ms(a) / ms(whole)
	l.add("delta", "(a) first push: server CPU per MB of NAR", fmt.Sprintf("%.2f ms", ms(a)), fmt.Sprintf("%.2f ms whole NARs", ms(whole)), fmt.Sprintf("%.2f", ratio), target(ratio <= 0.25, "≤ 1/4"))
	l.add("delta", "(a) bytes on the wire per byte of NAR", fmt.Sprintf("%.3f", float64(a.up+a.down)/float64(a.plain)), fmt.Sprintf("%.3f whole NARs", float64(whole.up+whole.down)/float64(whole.plain)), "", "")
	l.add("delta", "(a) seconds", fmt.Sprintf("%.1f", a.wall), fmt.Sprintf("%.1f whole NARs", whole.wall), fmt.Sprintf("%.2f", a.wall/whole.wall), "")
	l.add("delta", "(a) client: CPU per MB of NAR, peak resident memory", fmt.Sprintf("%.2f ms, %d MiB", a.client*1000/(float64(a.plain)/1e6), a.rss>>20), fmt.Sprintf("%.2f ms, %d MiB whole NARs", whole.client*1000/(float64(whole.plain)/1e6), whole.rss>>20), "", target(a.rss <= 256<<20, "≤ 256 MiB"))

	again, err := l.pushStore(ctx, s, store, "chunks", first, false, nil)
	if err != nil {
		return err
	}
	wholeAgain, err := l.pushStore(ctx, s, store, "whole", other, true, nil)
	if err != nil {
		return err
	}
	per := float64(again.up+again.down) / float64(max(again.paths, 1))
	l.add("delta", "(b) the same again: bytes on the wire in all", fmt.Sprint(again.up+again.down), fmt.Sprintf("%d whole NARs", wholeAgain.up+wholeAgain.down), "", fmt.Sprintf("%.0f of one path; see (d)", per))

	rebuilt, err := store.change(ctx, l, "rebuilt", first, deltaChanged)
	if err != nil {
		return err
	}
	c, err := l.pushStore(ctx, s, store, "chunks", rebuilt, false, nil)
	if err != nil {
		return err
	}
	otherRebuilt, err := store.change(ctx, l, "other-rebuilt", other, deltaChanged)
	if err != nil {
		return err
	}
	wc, err := l.pushStore(ctx, s, store, "whole", otherRebuilt, true, nil)
	if err != nil {
		return err
	}
	packed := float64(c.fresh) * float64(a.sent) / float64(a.plain)
	over := float64(c.up+c.down) / packed
	l.add("delta", fmt.Sprintf("(c) rebuild, %.0f %% of blocks changed: wire bytes, in parts of the changed chunks as (a) compresses", deltaChanged*100), fmt.Sprintf("%.2f", over), fmt.Sprintf("%.2f whole NARs", float64(wc.up+wc.down)/packed), "", target(over <= 1.3, "≤ 1.3"))
	l.add("delta", "(c) seconds", fmt.Sprintf("%.1f", c.wall), fmt.Sprintf("%.1f whole NARs", wc.wall), fmt.Sprintf("%.2f", c.wall/wc.wall), "")
	return nil
}

// deltaTiny is (d), and (b) with many paths.
func (l *lab) deltaTiny(ctx context.Context, s *server, store *nixStore) error {
	n := 4 * l.tiny
	var got [2]pushed
	for i, cache := range []string{"tiny-whole", "tiny-chunks"} {
		paths, err := store.addTiny(ctx, uint64(i), n)
		if err != nil {
			return err
		}
		if got[i], err = l.pushStore(ctx, s, store, cache, paths, i == 0, nil); err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		again, err := l.pushStore(ctx, s, store, cache, paths, false, nil)
		if err != nil {
			return err
		}
		per := float64(again.up+again.down) / float64(n)
		l.add("delta", fmt.Sprintf("(b) %d small paths again: bytes on the wire per path", n), fmt.Sprintf("%.0f", per), "", "", target(per <= 200, "≤ 200"))
	}
	whole, chunks := got[0], got[1]
	rate := float64(n) / chunks.wall
	l.add("delta", fmt.Sprintf("(d) %d small paths", n), fmt.Sprintf("%.0f paths/s", rate), fmt.Sprintf("%.0f paths/s whole NARs", float64(n)/whole.wall), fmt.Sprintf("%.2f", whole.wall/chunks.wall), target(rate >= 1000, "≥ 1000/s"))
	l.add("delta", "(d) data PUTs and log creates per 1000 paths", fmt.Sprintf("%.1f, %.1f", 1000*chunks.requested["put"]/float64(n), 1000*chunks.requested["create"]/float64(n)),
		fmt.Sprintf("%.1f, %.1f whole NARs", 1000*whole.requested["put"]/float64(n), 1000*whole.requested["create"]/float64(n)), "", "")
	return nil
}

// deltaSlow is (e): one large path over a narrow and long line.
func (l *lab) deltaSlow(ctx context.Context, s *server, store *nixStore) error {
	size := 4 * l.largeBytes
	path, err := store.addNoise(ctx, "slow", size)
	if err != nil {
		return err
	}
	line, err := newLink(ctx, strings.TrimPrefix(s.endpoint, "http://"), deltaLine, deltaDelay)
	if err != nil {
		return err
	}
	defer line.close()
	e, err := l.pushStore(ctx, s, store, "slow", path, false, line)
	if err != nil {
		return err
	}
	bound := float64(e.sent) / deltaLine
	l.add("delta", fmt.Sprintf("(e) one path of %.1f GB over 100 Mbit/s and 40 ms: share of the line's limit", float64(size)/1e9), fmt.Sprintf("%.2f", bound/e.wall), fmt.Sprintf("%.0f s for its compressed bytes", bound), "", target(bound/e.wall >= 0.9, "≥ 0.9"))
	l.add("delta", "(e) peak resident memory of the client", fmt.Sprintf("%d MiB", e.rss>>20), "", "", target(e.rss <= 256<<20, "≤ 256 MiB"))
	return nil
}

// pushStore pushes paths with the command, through a link that counts.
func (l *lab) pushStore(ctx context.Context, s *server, store *nixStore, cache, paths string, whole bool, line *link) (p pushed, err error) {
	if line == nil {
		if line, err = newLink(ctx, strings.TrimPrefix(s.endpoint, "http://"), 0, 0); err != nil {
			return p, err
		}
		defer line.close()
	}
	tokenFile := filepath.Join(l.dir, "delta-token")
	if err := os.WriteFile(tokenFile, []byte(s.token), 0o600); err != nil {
		return p, err
	}
	if err := command(ctx, store.env, l.celler, "login", "--set-default", "bench", "http://"+line.addr, "--token-file", tokenFile); err != nil {
		return p, err
	}
	before, err := s.bucketRequests()
	if err != nil {
		return p, err
	}
	args := []string{"push", cache, "--stdin", "--json"}
	if whole {
		args = append(args, "--whole")
	}
	cmd := exec.CommandContext(ctx, l.celler, args...)
	cmd.Env, cmd.Stdin = store.env, strings.NewReader(paths)
	up, down, cpu := line.up.Load(), line.down.Load(), must(s.cpuSeconds())
	begin := time.Now()
	out, err := cmd.Output()
	p.wall = time.Since(begin).Seconds()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return p, fmt.Errorf("celler push: %w: %s%s", err, exit.Stderr, out)
	} else if err != nil {
		return p, err
	}
	p.up, p.down, p.server = line.up.Load()-up, line.down.Load()-down, must(s.cpuSeconds())-cpu
	p.client = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		p.rss = usage.Maxrss << 10
	}
	if p.requested, err = s.bucketRequests(); err != nil {
		return p, err
	}
	for op := range p.requested {
		p.requested[op] -= before[op]
	}
	p.paths = strings.Count(paths, "\n")
	return p, p.read(out)
}

// read takes the sums from the command's last event.
func (p *pushed) read(out []byte) error {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var done struct {
		Event            string
		Failed, Skipped  int
		NarBytes         int64 `json:"nar_bytes"`
		NewBytes         int64 `json:"new_bytes"`
		SentBytes        int64 `json:"sent_bytes"`
		Pushed, Upstream int
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &done); err != nil || done.Event != "done" || done.Failed+done.Skipped > 0 {
		return fmt.Errorf("celler push ended with %q: %w", lines[len(lines)-1], err)
	}
	p.plain, p.fresh, p.sent = done.NarBytes, done.NewBytes, done.SentBytes
	return nil
}

// nixStore is a Nix store of a scratch directory.
type nixStore struct {
	dir, src string
	env      []string
}

func (l *lab) newStore(name string) (*nixStore, error) {
	root, home := filepath.Join(l.dir, name+"-nix"), filepath.Join(l.dir, name+"-home")
	st := &nixStore{dir: root + "/store", src: root + "/src"}
	st.env = append(os.Environ(), "NIX_STORE_DIR="+st.dir, "NIX_STATE_DIR="+root+"/state", "NIX_LOG_DIR="+root+"/log",
		"NIX_CONF_DIR="+root+"/etc", "NIX_REMOTE=local", "HOME="+home, "XDG_CONFIG_HOME="+home)
	for _, d := range []string{root + "/etc", home, st.src} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	return st, os.WriteFile(root+"/etc/nix.conf", []byte("sandbox = false\nbuild-users-group =\n"), 0o644)
}

// add adds files or trees to the store, and returns their paths, a line each.
func (st *nixStore) add(ctx context.Context, files ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "nix-store", append([]string{"--add"}, files...)...)
	cmd.Env = st.env
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("nix-store --add: %w: %s", err, exit.Stderr)
	}
	return string(out), err
}

// addTree adds one tree of real files.
func (st *nixStore) addTree(ctx context.Context, l *lab, name string, size int64) (string, error) {
	files, err := realFiles(size, l.narBytes)
	if err != nil {
		return "", err
	}
	tree := filepath.Join(st.src, name)
	for _, f := range files {
		if _, err := copyInto(tree, f); err != nil {
			return "", err
		}
	}
	return st.add(ctx, tree)
}

// change adds a copy of the tree that path was made of, in which a share of all blocks of
// 16 KiB has some other bytes.
func (st *nixStore) change(ctx context.Context, _ *lab, name, path string, share float64) (string, error) {
	from := strings.TrimSpace(path)
	to := filepath.Join(st.src, name)
	rng := rand.New(rand.NewPCG(uint64(len(name)), 11))
	err := filepath.WalkDir(from, func(file string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		out := filepath.Join(to, strings.TrimPrefix(file, from))
		if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
			return err
		}
		return changeFile(file, out, rng, share)
	})
	if err != nil {
		return "", err
	}
	return st.add(ctx, to)
}

func changeFile(from, to string, rng *rand.Rand, share float64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	block := make([]byte, 16<<10)
	for {
		n, err := io.ReadFull(in, block)
		if n > 0 && rng.Float64() < share*float64(n)/float64(len(block)) {
			for range 8 { // as if a store path in it were another one
				block[rng.IntN(n)] ^= byte(1 + rng.IntN(255))
			}
		}
		if _, err := out.Write(block[:n]); err != nil {
			out.Close()
			return err
		}
		if err != nil {
			return out.Close()
		}
	}
}

func (st *nixStore) addTiny(ctx context.Context, seed uint64, n int) (string, error) {
	rng := rand.New(rand.NewPCG(seed, 2))
	var files []string
	for i := range n {
		f := filepath.Join(st.src, fmt.Sprintf("tiny-%d-%d", seed, i))
		b := make([]byte, 200+rng.IntN(8000))
		for j := range b {
			b[j] = "0123456789abcdefghijklmnopqrstuv"[rng.IntN(32)]
		}
		if err := os.WriteFile(f, b, 0o644); err != nil {
			return "", err
		}
		files = append(files, f)
	}
	return st.add(ctx, files...)
}

// addNoise adds one file that compresses by two thirds.
func (st *nixStore) addNoise(ctx context.Context, name string, size int64) (string, error) {
	file := filepath.Join(st.src, name)
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	if _, err := io.Copy(w, io.LimitReader(&noise{rng: rand.New(rand.NewPCG(99, 7))}, size)); err != nil {
		return "", err
	}
	if err := w.Flush(); err != nil {
		return "", err
	}
	path, err := st.add(ctx, file)
	if err != nil {
		return "", err
	}
	return path, os.Remove(file)
}
