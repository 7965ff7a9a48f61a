package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/s3blob"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

const (
	// indexPatience is how long a server may take to begin with a large index.
	indexPatience = 30 * time.Minute
	// rounds of compaction, and pushes before each: enough for small runs to be merged.
	compactRounds, compactPushes = 9, 1000
	// fetchParallel is how many tables an index fetches at once.
	fetchParallel = 32
)

// largeIndex measures what a large store costs a server that begins, and a round of
// compaction after few pushes. The index is made up, table by table.
func largeIndex(ctx context.Context, l *lab) error {
	addr, env, err := l.s3()
	if err != nil {
		return err
	}
	bucket, err := openS3(ctx, addr)
	if err != nil {
		return err
	}
	defer bucket.Close()
	st := newState(l.indexPaths, firstCache)
	err = l.foundLarge(ctx, st, bucket, addr, env)
	if err != nil {
		return err
	}
	s, err := l.bootstrap(ctx, bucket, st, addr, env)
	if err != nil {
		return err
	}
	return l.compactLarge(ctx, s, addr, env)
}

func openS3(ctx context.Context, addr string) (*s3blob.Bucket, error) {
	o, err := s3blob.ParseURL(s3URL(addr))
	if err != nil {
		return nil, err
	}
	o.AccessKeyID, o.SecretAccessKey = "celler", "cellersecret"
	return s3blob.Open(ctx, o)
}

// foundLarge makes a bucket with one cache and a snapshot of that alone, and then puts
// the rows of a large store under it.
func (l *lab) foundLarge(ctx context.Context, st *state, bucket blob.Bucket, addr string, env []string) error {
	s, err := l.serve(ctx, s3URL(addr), filepath.Join(l.dir, "found"), env...)
	if err != nil {
		return err
	}
	if err := s.createCache(ctx, "bench"); err != nil {
		return err
	}
	s.stop()
	if _, err := l.compactOnce(ctx, addr, env); err != nil {
		return err
	}
	begin := time.Now()
	tables, size, err := st.install(ctx, bucket)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "bench:   made up %d paths, %d chunks: %d tables, %.1f GB in %.0f s\n", st.paths, st.chunks(), tables, float64(size)/1e9, time.Since(begin).Seconds())
	return nil
}

// firstCache is the number that the first cache of a store gets. That it is right is
// seen when a path is asked for.
const firstCache = keyspace.CacheID(1)

// bootstrap starts a server with an empty disk, beside a bare download of the same objects.
func (l *lab) bootstrap(ctx context.Context, bucket blob.Bucket, st *state, addr string, env []string) (*server, error) {
	size, bare, err := l.download(ctx, bucket)
	if err != nil {
		return nil, err
	}
	l.patience = indexPatience
	defer func() { l.patience = 0 }()
	s, err := l.serve(ctx, s3URL(addr), filepath.Join(l.dir, "large"), append(env, "CELLER_MAINTENANCE=off")...)
	if err != nil {
		return nil, err
	}
	peak, err := s.peakRSS()
	if err != nil {
		return nil, err
	}
	for _, place := range []int64{0, st.paths / 3, st.paths - 1} {
		sp, err := st.storePath(place)
		if err != nil {
			return nil, err
		}
		text, err := get(ctx, s.endpoint+"/bench/"+sp.HashPart().String()+".narinfo")
		if err != nil {
			return nil, err
		}
		info, err := nix.ParseNarInfo(text)
		if want := nix.SHA256Hash(st.narHash(st.ofPath.of(place))); err != nil || info.NarHash != want {
			return nil, fmt.Errorf("narinfo of %s: %w, NAR hash is to be %v:\n%s", sp, err, want, text)
		}
	}
	more := s.ready.Seconds() - bare.Seconds()
	name := fmt.Sprintf("index of %s paths, %s chunks", amount(st.paths), amount(st.chunks()))
	l.add("bootstrap", name+": exec to ready, "+fmt.Sprintf("%.2f GB of tables on an S3 server", float64(size)/1e9), fmt.Sprintf("%.1f s", s.ready.Seconds()),
		fmt.Sprintf("%.1f s bare download to disk", bare.Seconds()), fmt.Sprintf("%.2f", s.ready.Seconds()/bare.Seconds()), target(more <= 10, "≤ 10 s more"))
	l.add("bootstrap", "peak resident memory of the server", fmt.Sprintf("%d MiB", peak>>20), "", "", target(peak <= 1<<30, "≤ 1 GiB"))
	return s, nil
}

func amount(n int64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.3g M", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.3g k", float64(n)/1e3)
	}
	return fmt.Sprint(n)
}

// download fetches the tables that the snapshot names, as many at once as an index
// does, into files that are synced, and looks at none of them.
func (l *lab) download(ctx context.Context, bucket blob.Bucket) (size int64, d time.Duration, err error) {
	root, err := wal.ReadRoot(ctx, bucket)
	if err != nil {
		return 0, 0, err
	}
	snapshot, err := wal.ReadSnapshot(ctx, bucket, root.Store, root.Snapshot)
	if err != nil {
		return 0, 0, err
	}
	dir := filepath.Join(l.dir, "bare")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var tables []wal.Table
	for i := range snapshot.Runs {
		size += snapshot.Runs[i].Bytes()
		tables = append(tables, snapshot.Runs[i].Tables...)
	}
	work := make(chan int, len(tables))
	for i := range tables {
		work <- i
	}
	close(work)
	errs := make([]error, len(tables))
	var wg sync.WaitGroup
	begin := time.Now()
	for range fetchParallel {
		wg.Go(func() {
			for i := range work {
				errs[i] = fetchFile(ctx, bucket, tables[i], filepath.Join(dir, fmt.Sprint(i)))
			}
		})
	}
	wg.Wait()
	return size, time.Since(begin), errors.Join(errs...)
}

func fetchFile(ctx context.Context, bucket blob.Bucket, t wal.Table, name string) error {
	body, err := bucket.GetRange(ctx, t.Key, 0, t.Size)
	if err != nil {
		return err
	}
	defer body.Close()
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, body, make([]byte, 256<<10))
	return errors.Join(err, f.Sync(), f.Close())
}

// compaction is what "celler compact --json" says, and what it took.
type compaction struct {
	Merges       int   `json:"merges"`
	Segments     int   `json:"segments"`
	BytesRead    int64 `json:"bytes_read"`
	BytesWritten int64 `json:"bytes_written"`
	Bytes        int64 `json:"bytes"` // of all tables, afterwards

	wall time.Duration
	rss  int64
}

func (l *lab) compactOnce(ctx context.Context, addr string, env []string) (c compaction, err error) {
	cmd := exec.CommandContext(ctx, l.celler, "compact", "--steal", "--json", "--bucket", s3URL(addr), "--compact.keep-segments=0", "--compact.log-retention=0s")
	cmd.Env = append(os.Environ(), env...)
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return c, fmt.Errorf("celler compact: %w: %s", err, &text)
	}
	c.wall = time.Since(begin)
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.rss = usage.Maxrss << 10
	}
	return c, json.Unmarshal(out.Bytes(), &c)
}

// compactLarge pushes some small paths and compacts, several times over.
func (l *lab) compactLarge(ctx context.Context, s *server, addr string, env []string) error {
	var all, worst compaction
	merges := 0
	for round := range compactRounds {
		if err := l.pushSmall(ctx, s, round); err != nil {
			return err
		}
		c, err := l.compactOnce(ctx, addr, env)
		if err != nil {
			return err
		}
		if c.Segments == 0 || c.Bytes == 0 {
			return fmt.Errorf("round %d of compaction folded %d segments into a snapshot of %d bytes", round, c.Segments, c.Bytes)
		}
		fmt.Fprintf(os.Stderr, "bench:   round %d: %d segments, %d merges, read %d, wrote %d of %d bytes in %v, %d MiB\n",
			round, c.Segments, c.Merges, c.BytesRead, c.BytesWritten, c.Bytes, c.wall.Round(time.Millisecond), c.rss>>20)
		all.BytesWritten += c.BytesWritten
		all.wall += c.wall
		merges += c.Merges
		all.rss = max(all.rss, c.rss)
		if c.BytesWritten >= worst.BytesWritten {
			worst = c
		}
	}
	share := func(written, whole int64) float64 { return 100 * float64(written) / float64(whole) }
	whole := fmt.Sprintf("%.2f GB, a full rebuild", float64(worst.Bytes)/1e9)
	mean := all.BytesWritten / compactRounds
	l.add("compaction", fmt.Sprintf("round after %d pushes on that index, bytes written, mean of %d", compactPushes, compactRounds),
		fmt.Sprintf("%.2f MB", float64(mean)/1e6), whole, fmt.Sprintf("%.3f %%", share(mean, worst.Bytes)), "")
	l.add("compaction", fmt.Sprintf("the round that wrote most (%d merges of %d in all)", worst.Merges, merges),
		fmt.Sprintf("%.2f MB", float64(worst.BytesWritten)/1e6), whole, fmt.Sprintf("%.3f %%", share(worst.BytesWritten, worst.Bytes)),
		target(share(worst.BytesWritten, worst.Bytes) <= 2, "≤ 2 %"))
	l.add("compaction", "time of a round, mean", fmt.Sprintf("%.2f s", all.wall.Seconds()/compactRounds), "", "", "")
	l.add("compaction", "peak resident memory of the compactor", fmt.Sprintf("%d MiB", all.rss>>20), "", "", "")
	return nil
}

// pushSmall pushes paths of a few KB over several connections.
func (l *lab) pushSmall(ctx context.Context, s *server, round int) error {
	work := make(chan int, compactPushes)
	for i := range compactPushes {
		work <- i
	}
	close(work)
	errs := make(chan error, 16)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range work {
				n, err := newSynthetic(uint64(1_000_000+round*compactPushes+i), int64(2000+i*13))
				if err == nil {
					err = s.push(ctx, "bench", n.corpusNAR, n.reader())
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	var text []string
	for err := range errs {
		text = append(text, err.Error())
	}
	if len(text) > 0 {
		return errors.New(strings.Join(text, "; "))
	}
	return nil
}
