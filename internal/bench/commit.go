package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

const (
	contendRate = 1000 // pushes a second, at all replicas together
	// A push of 30 chunks of which half are new.
	contendChunks = 15
)

// commits measures how long a push waits for its commit when several replicas publish
// to one bucket that has the delays of S3. The replicas are whole but for HTTP and the
// bytes of the NARs: log, index and catalog; they share this process, and the bucket is
// memory behind simulated delays.
func commits(ctx context.Context, l *lab) error {
	three := contest{replicas: 3}
	for _, c := range []contest{
		{replicas: 1},
		{replicas: 3, strange: true},
		three,
		{replicas: 3, stalls: true, patient: true},
		{replicas: 3, stalls: true},
		{replicas: 10, strange: true},
		{replicas: 10},
	} {
		rep, err := l.contendOnce(ctx, c)
		if err != nil {
			return err
		}
		name, verdict := c.String(), ""
		if c == three {
			verdict = target(rep.SlowestP99 <= 500*time.Millisecond, "p99 ≤ 0.5 s")
		}
		ms := func(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
		l.add("commit", name+": p50, p99, p99 of the slowest replica, longest",
			fmt.Sprintf("%s, %s, %s, %s", ms(rep.P50), ms(rep.P99), ms(rep.SlowestP99), ms(rep.Max)), "PUT 62/180 ms, GET 20/80 ms (p50/p99)", "", verdict)
		l.add("commit", name+": segments/s, creates/s, of these lost, sent twice, reads/s",
			fmt.Sprintf("%.1f, %.1f, %.0f %%, %.1f %%, %.0f", rep.Segments, rep.Creates, 100*rep.Lost, rep.Hedged, rep.Reads), "", "", "")
	}
	return nil
}

// contest is one row of the scenario.
type contest struct {
	replicas int
	strange  bool // they do not know each other
	stalls   bool // some creates take much longer than the delays say
	patient  bool // nothing is sent twice
}

const (
	stallShare = 0.01
	stallTime  = 1500 * time.Millisecond
)

func (c contest) String() string {
	name := fmt.Sprintf("%d replicas, %d pushes/s", c.replicas, contendRate)
	if c.strange {
		name += ", no peers"
	}
	if c.stalls {
		name += fmt.Sprintf(", %.0f %% of the creates take %.1f s longer", 100*stallShare, stallTime.Seconds())
	}
	if c.patient {
		name += ", none is sent twice"
	}
	return name
}

func (l *lab) contendOnce(ctx context.Context, contest contest) (rep waltest.ContentionReport, err error) {
	bucket := memblob.New()
	format, err := wal.Found(ctx, bucket, wal.Format{Profile: "fast2016-64k"})
	if err != nil {
		return rep, err
	}
	dir := filepath.Join(l.dir, "contend")
	replicas, strange := contest.replicas, contest.strange
	dbs, cats := make([]*index.DB, replicas), make([]*catalog.Catalog, replicas)
	defer func() {
		for _, db := range dbs {
			if db != nil {
				err = errors.Join(err, db.Close())
			}
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	c := waltest.Contention{
		Replicas: replicas, Rate: contendRate, For: l.contend, WarmUp: 3 * time.Second, Seed: 1, Hints: !strange, Forward: !strange,
		State: func(i int) (wal.State, error) {
			dbs[i], err = index.Open(filepath.Join(dir, fmt.Sprint(i)), format.Store, index.Options{Bucket: bucket})
			return dbs[i], err
		},
		Opened: func(i int, log *wal.Log) error {
			cats[i] = catalog.New(log, dbs[i], catalog.Options{})
			if i > 0 {
				_, err := log.CatchUp(ctx)
				return err
			}
			_, err := cats[0].CreateCache(ctx, catalog.Cache{Name: "bench"})
			return err
		},
		Do: func(ctx context.Context, i, n int) error {
			p, err := mkPush(i, n)
			if err == nil {
				_, err = cats[i].Publish(ctx, p)
			}
			return err
		},
		Revive: func(i int, name string, intent []byte) (wal.Op, error) { return cats[i].Revive(name, intent) },
	}.S3()
	if contest.stalls {
		c.Put.Stalls, c.Put.Stall = stallShare, stallTime
	}
	if contest.patient {
		c.Options.HedgeAfter = -1
	}
	return c.Run(ctx, bucket)
}

// mkPush makes up a push: a path, its recipe, and the chunks that were new.
func mkPush(replica, n int) (p catalog.Publication, err error) {
	id := uint64(replica)<<32 | uint64(n)
	sum := func(what byte, i int) [32]byte {
		return sha256.Sum256(binary.BigEndian.AppendUint64([]byte{what, byte(i)}, id))
	}
	var hashPart nix.HashPart
	h := sum('p', 0)
	copy(hashPart[:], h[:])
	path, err := nix.ParseStorePathBase(nix.DefaultStoreDir, hashPart.String()+"-bench-1.0")
	if err != nil {
		return p, err
	}
	pack := chunk.NewPack{Layout: chunk.Layout{ID: chunk.PackID{Epoch: 1, Rand: id + 1}, Bytes: contendChunks*30_000 + 1000}}
	for i := range contendChunks {
		pack.Layout.Sizes = append(pack.Layout.Sizes, 64_000)
		pack.Layout.Frames = append(pack.Layout.Frames, chunk.Frame{Offset: int64(i) * 30_000, Size: 30_000, Checksum: uint32(id) + uint32(i), Chunks: 1})
		pack.IDs = append(pack.IDs, sum('c', i))
	}
	narHash := sum('n', 0)
	return catalog.Publication{
		Path: catalog.Path{Cache: "bench", StorePath: path, NarHash: narHash, NarSize: contendChunks * 64_000, By: "bench"},
		Recipe: chunk.Recipe{
			Size: contendChunks * 64_000, NarHash: narHash, Runs: []chunk.Run{{Pack: pack.Layout.ID, Count: contendChunks}},
			Served: chunk.Served{Encoder: 1, Size: contendChunks * 30_000},
		},
		Packs: []chunk.NewPack{pack},
	}, nil
}
