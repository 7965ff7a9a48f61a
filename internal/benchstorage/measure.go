package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/index/keyspace"
)

// variant is a way to store.
type variant struct {
	label          string
	profile        string
	frame, restore int
	encoder        uint8
	chosen, single bool
}

func variants(all bool) []variant {
	list := []variant{
		{label: "64 KiB chunks, one a frame", profile: "fast2016-64k", frame: 1, restore: -1, single: true},
		{label: "celler", profile: chunk.DefaultProfile, chosen: true},
	}
	if !all {
		return list
	}
	const kib = 1 << 10
	for _, v := range []variant{
		{frame: 256 * kib, restore: 16 * kib},
		{frame: 1024 * kib, restore: 16 * kib},
		{frame: 512 * kib, restore: -1},
		{frame: 512 * kib, restore: 128 * kib},
		{frame: 512 * kib, restore: 16 * kib, encoder: 2},
		{frame: 512 * kib, restore: 16 * kib, profile: "fast2016-32k"},
		{frame: 128 * kib, restore: 16 * kib},
	} {
		if v.profile == "" {
			v.profile = chunk.DefaultProfile
		}
		v.label = v.describe()
		list = append(list, v)
	}
	return list
}

func (v variant) describe() string {
	restore, encoder := "never stored again", "fastest"
	if v.restore > 0 {
		restore = fmt.Sprintf("again below %d KiB", v.restore>>10)
	}
	if v.encoder == 2 {
		encoder = "default"
	}
	return fmt.Sprintf("%s, frames %d KiB, %s, encoder %s", v.profile, v.frame>>10, restore, encoder)
}

func (v variant) options() (chunkstore.Options, error) {
	p, err := chunk.ParseProfile(v.profile)
	return chunkstore.Options{Profile: p, FrameBytes: v.frame, RestoreBytes: v.restore, ServedEncoder: v.encoder, HedgeAfter: -1}, err
}

func measureStore(ctx context.Context, s settings, sources []source, v variant) (result, error) {
	r := result{label: v.label, chosen: v.chosen, single: v.single}
	var mu sync.Mutex // guards calls, put and got
	calls, put, got := map[string]int64{}, int64(0), int64(0)
	bucket := blob.Observe(memblob.New(), func(_ context.Context, c blob.Call) {
		mu.Lock()
		defer mu.Unlock()
		calls[c.Op]++
		switch c.Op {
		case "put":
			put += c.Bytes
		case "get_range":
			got += c.Bytes
		}
	})
	dir := newDirectory()
	o, err := v.options()
	if err != nil {
		return r, err
	}
	recipes := make([][]chunk.Recipe, len(generations))
	for i, g := range generations {
		gen := &r.gen[i]
		clear(calls)
		put = 0
		index := dir.bytes
		recipes[i], gen.ingest, err = ingest(ctx, s, sources, byte(g), bucket, dir, o)
		if err != nil {
			return r, fmt.Errorf("ingest %c: %w", g, err)
		}
		gen.stored, gen.index, gen.puts = put, dir.bytes-index, calls["put"]
	}
	for i := range recipes {
		clear(calls)
		got = 0
		o.Metrics = metrics.NewSet()
		if err := pull(ctx, recipes[i], bucket, dir, o, &r.gen[i]); err != nil {
			return r, fmt.Errorf("pull %c: %w", generations[i], err)
		}
		r.gen[i].gets, r.gen[i].fetched = calls["get_range"], got
		if err := verifyAll(ctx, s, recipes[i], bucket, dir, o); err != nil {
			return r, fmt.Errorf("verify %c: %w", generations[i], err)
		}
	}
	runtime.KeepAlive(bucket)
	debug.FreeOSMemory()
	return r, nil
}

func ingest(ctx context.Context, s settings, sources []source, g byte, bucket blob.Bucket, dir *directory, o chunkstore.Options) (recipes []chunk.Recipe, cpu time.Duration, err error) {
	store, err := chunkstore.New(bucket, dir, o)
	if err != nil {
		return nil, 0, err
	}
	defer store.Close()
	before, err := cpuTime()
	if err != nil {
		return nil, 0, err
	}
	for _, src := range sources {
		f, err := os.Open(narPath(s.dir, g, src))
		if err != nil {
			return nil, 0, err
		}
		res, err := store.Write(ctx, f)
		f.Close()
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", src.name, err)
		}
		if err := dir.publish(ctx, res); err != nil {
			return nil, 0, err
		}
		recipes = append(recipes, res.Recipe)
	}
	after, err := cpuTime()
	return recipes, after - before, err
}

func pull(ctx context.Context, recipes []chunk.Recipe, bucket blob.Bucket, dir *directory, o chunkstore.Options, gen *figures) error {
	store, err := chunkstore.New(bucket, dir, o)
	if err != nil {
		return err
	}
	defer store.Close()
	runtime.GC()
	before, err := cpuTime()
	if err != nil {
		return err
	}
	for i := range recipes {
		rd, err := store.Open(ctx, &recipes[i])
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, rd)
		rd.Close()
		if err != nil {
			return err
		}
		gen.wire += n
		for _, seg := range recipes[i].Served.Segments {
			gen.passed -= int64(seg)
		}
	}
	after, err := cpuTime()
	gen.pull = after - before
	gen.passed += gen.wire
	return err
}

// verifyAll decodes everything that is served, if that was asked for.
func verifyAll(ctx context.Context, s settings, recipes []chunk.Recipe, bucket blob.Bucket, dir *directory, o chunkstore.Options) error {
	if !s.verify {
		return nil
	}
	store, err := chunkstore.New(bucket, dir, o)
	if err != nil {
		return err
	}
	defer store.Close()
	for i := range recipes {
		if err := check(ctx, store, &recipes[i]); err != nil {
			return err
		}
	}
	return nil
}

// check decodes a served NAR as a client does.
func check(ctx context.Context, store *chunkstore.Store, r *chunk.Recipe) error {
	rd, err := store.Open(ctx, r)
	if err != nil {
		return err
	}
	defer rd.Close()
	dec, err := zstd.NewReader(rd)
	if err != nil {
		return err
	}
	defer dec.Close()
	h := sha256.New()
	n, err := io.Copy(h, dec)
	if err != nil {
		return err
	}
	if n != r.Size || [32]byte(h.Sum(nil)) != r.NarHash {
		return fmt.Errorf("served nar decodes to %d bytes with SHA-256 %x, want %d, %x", n, h.Sum(nil), r.Size, r.NarHash)
	}
	return nil
}

// directory is the metadata in memory. It counts the bytes of the rows that a
// real one would write: keys and values as they are, before any compression.
type directory struct {
	mu     sync.Mutex // guards all below
	chunks map[chunk.ID]chunk.Location
	packs  map[chunk.PackID]chunk.Layout
	bytes  int64
}

func newDirectory() *directory {
	return &directory{chunks: make(map[chunk.ID]chunk.Location), packs: make(map[chunk.PackID]chunk.Layout)}
}

// LookupChunks implements chunkstore.Directory.
func (d *directory) LookupChunks(_ context.Context, ids []chunk.ID) ([]chunk.Location, []bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, known := make([]chunk.Location, len(ids)), make([]bool, len(ids))
	for i, id := range ids {
		at[i], known[i] = d.chunks[id]
	}
	return at, known, nil
}

// LookupRefs implements chunkstore.Directory. Nothing here is pushed by references.
func (d *directory) LookupRefs(_ context.Context, refs []chunk.Ref) ([]chunk.Location, []bool, error) {
	return make([]chunk.Location, len(refs)), make([]bool, len(refs)), nil
}

// ProveChunks implements chunkstore.Directory.
func (*directory) ProveChunks(context.Context, []chunk.ID, []chunk.Proof) error { return nil }

// PackLayout implements chunkstore.Directory.
func (d *directory) PackLayout(_ context.Context, id chunk.PackID) (chunk.Layout, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, ok := d.packs[id]
	if !ok {
		return l, fmt.Errorf("pack %v is not known", id)
	}
	return l, nil
}

// CommitPacks implements chunkstore.Directory.
func (d *directory) CommitPacks(_ context.Context, packs []chunk.NewPack) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var row []byte
	for _, p := range packs {
		if _, ok := d.packs[p.Layout.ID]; ok {
			continue
		}
		d.packs[p.Layout.ID] = p.Layout
		row = chunk.AppendLayout(keyspace.AppendPackKey(row[:0], p.Layout.ID), &p.Layout)
		d.bytes += int64(len(row))
		for i, id := range p.IDs {
			if _, ok := d.chunks[id]; ok {
				continue
			}
			at := chunk.Location{Pack: p.Layout.ID, Index: uint32(i)}
			d.chunks[id] = at
			row = keyspace.AppendChunk(keyspace.AppendChunkKey(row[:0], id), at, chunk.Proof(id[8:]))
			d.bytes += int64(len(row))
		}
	}
	return nil
}

// UploadEpoch implements chunkstore.Directory.
func (d *directory) UploadEpoch(context.Context) (uint32, error) { return 1, nil }

// publish makes a NAR known.
func (d *directory) publish(ctx context.Context, res chunkstore.Result) error {
	d.mu.Lock()
	d.bytes += 33 + int64(len(chunk.AppendRecipe(nil, &res.Recipe)))
	d.mu.Unlock()
	return d.CommitPacks(ctx, res.Packs)
}
