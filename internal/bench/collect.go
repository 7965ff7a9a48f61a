package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

const (
	// collectPaths makes a little more than a million dead chunks, in two packs of five
	// that are dead as a whole, and in one of five that is dead by half, which is not yet
	// enough to write it again.
	collectPaths = 201_600
	// collectPatience is how long to wait for packs to be deleted: two store days, of a
	// minute each, have to end before.
	collectPatience = 8 * time.Minute
)

// collection is what "celler gc run --json" says, and what it took.
type collection struct {
	Condemned int              `json:"condemned_chunks"`
	Deleted   int              `json:"deleted_objects"`
	Rewritten int              `json:"rewritten_packs"`
	Commits   int              `json:"commits"`
	Requests  map[string]int64 `json:"requests"`

	cpu float64 // seconds
	rss int64
}

// collect removes a million chunks that nothing names from an index of two million.
func collect(ctx context.Context, l *lab) error {
	addr, env, err := l.s3()
	if err != nil {
		return err
	}
	bucket, err := openS3(ctx, addr)
	if err != nil {
		return err
	}
	defer bucket.Close()
	paths := int64(collectPaths)
	if l.quick {
		paths /= 50
	}
	st := newState(paths, firstCache)
	st.dead = func(path int64) bool {
		pack := path / perPack
		return pack%5 < 2 || pack%5 == 2 && path%2 == 0
	}
	dead, deadPacks := 0, 0
	for path := range st.paths {
		if st.dead(path) {
			dead += perPath
		}
	}
	for pack := range st.packs() {
		if pack%5 < 2 {
			deadPacks++
		}
	}
	if err := l.foundLarge(ctx, st, bucket, addr, env); err != nil {
		return err
	}
	if err := putPacks(ctx, bucket, st); err != nil {
		return err
	}
	if err := passEpochs(ctx, bucket, filepath.Join(l.dir, "epochs")); err != nil {
		return fmt.Errorf("let upload epochs pass: %w", err)
	}
	return l.collectAll(ctx, st, addr, env, dead, deadPacks)
}

// passEpochs makes the packs as old as two upload epochs, which last a day each: what was
// stored later may belong to a push that is not over, and is left alone.
func passEpochs(ctx context.Context, bucket blob.Bucket, dir string) (err error) {
	root, err := wal.ReadRoot(ctx, bucket)
	if err != nil {
		return err
	}
	db, err := index.Open(dir, root.Store, index.Options{Bucket: bucket})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(), os.RemoveAll(dir)) }()
	log, err := wal.Open(ctx, bucket, db, wal.Options{})
	if err != nil {
		return err
	}
	_, err = log.Commit(ctx, wal.Op{Name: "bench", Cost: 32, Build: func(wal.View) ([]wal.Entry, error) {
		return []wal.Entry{{Kind: wal.Set, Key: keyspace.AppendCounterKey(nil, keyspace.UploadEpoch), Value: keyspace.AppendCount(nil, packEpoch+2)}}, nil
	}})
	return errors.Join(err, log.Close())
}

// putPacks puts something small in the place of every pack. A pack that is dead is
// deleted unseen.
func putPacks(ctx context.Context, bucket blob.Bucket, st *state) error {
	work := make(chan int64, st.packs())
	for pack := range st.packs() {
		work <- pack
	}
	close(work)
	errs := make([]error, fetchParallel)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for pack := range work {
				if _, errs[i] = bucket.Put(ctx, blob.Key("pack/"+st.packID(pack).String()), []byte("a pack that nobody reads")); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// collectAll performs rounds until everything dead has left the bucket.
func (l *lab) collectAll(ctx context.Context, st *state, addr string, env []string, dead, deadPacks int) error {
	var all collection
	requests, rounds := int64(0), 0
	for deadline := time.Now().Add(collectPatience); all.Condemned < dead || all.Deleted < deadPacks; rounds++ {
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v, %d of %d dead chunks were condemned and %d of %d packs deleted", collectPatience, all.Condemned, dead, all.Deleted, deadPacks)
		}
		c, err := l.collectOnce(ctx, addr, env)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "bench:   round %d: condemned %d, deleted %d, rewrote %d, %d commits, %v, %.1f s of processor, %d MiB\n",
			rounds, c.Condemned, c.Deleted, c.Rewritten, c.Commits, c.Requests, c.cpu, c.rss>>20)
		all.Condemned += c.Condemned
		all.Deleted += c.Deleted
		all.Commits += c.Commits
		all.cpu += c.cpu
		all.rss = max(all.rss, c.rss)
		for _, n := range c.Requests {
			requests += n
		}
		if l.quick && all.Condemned >= dead {
			break // what is left takes minutes, of any size
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(15 * time.Second):
		}
	}
	if all.Condemned != dead {
		return fmt.Errorf("%d chunks were condemned, %d are dead", all.Condemned, dead)
	}
	name := fmt.Sprintf("%s dead chunks of %s, until their packs are deleted: processor time, %d rounds", amount(int64(dead)), amount(st.chunks()), rounds)
	l.add("collection", name, fmt.Sprintf("%.1f s", all.cpu), "", "", target(all.cpu <= 60, "≤ 60 s"))
	l.add("collection", "bucket requests, segments committed, packs deleted", fmt.Sprintf("%d, %d, %d", requests, all.Commits, all.Deleted), "", "", "")
	l.add("collection", "peak resident memory of the collector", fmt.Sprintf("%d MiB", all.rss>>20), "", "", "")
	return nil
}

func (l *lab) collectOnce(ctx context.Context, addr string, env []string) (c collection, err error) {
	cmd := exec.CommandContext(ctx, l.celler, "gc", "run", "--json", "--bucket", s3URL(addr), "--cache-dir", filepath.Join(l.dir, "collector"),
		"--compact.log-retention=0s", "--garbage-collection.nar-grace=1s", "--garbage-collection.reader-grace=1s")
	cmd.Env = append(os.Environ(), env...)
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	if err := cmd.Run(); err != nil {
		return c, fmt.Errorf("celler gc run: %w: %s", err, &text)
	}
	c.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.rss = usage.Maxrss << 10
	}
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	return c, json.Unmarshal(lines[len(lines)-1], &c)
}
