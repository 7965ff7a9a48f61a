package sim

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

const simProfile = "fast2016-16k"

// simPaths are the paths that there may be, and what each refers to.
var simPaths = map[string][]string{ //nolint:gochecknoglobals // a table
	"p0": {"p1", "p2"}, "p1": {"p3"}, "p2": {"p3", "p4"}, "p3": nil, "p4": {"p5"}, "p5": nil,
	"p6": {"p4"}, "p7": {"p6", "p1"}, "p8": nil, "p9": {"p8"},
}

func simPath(name string) nix.StorePath {
	sum := sha256.Sum256([]byte(name))
	var hp nix.HashPart
	copy(hp[:], sum[:])
	p, err := nix.ParseStorePathBase(nix.DefaultStoreDir, hp.String()+"-"+name)
	if err != nil {
		panic(err)
	}
	return p
}

// simChunks are the chunks of the NAR of a path, some of which others have, too.
func simChunks(name string) [][]byte {
	i := int(name[1] - '0')
	var all [][]byte
	for _, n := range []int{i, i + 1, 20 + i*7%10, 20 + i%3} {
		c := fmt.Appendf(nil, "chunk %d", n)
		sum := sha256.Sum256(c)
		all = append(all, append(c, sum[:]...))
	}
	return all
}

func parsePack(key blob.Key) (chunk.PackID, error) { return pack.ParseKey(key) }

// pusher pushes, uses, pins and deletes.
func (c *collecting) pusher(ctx context.Context, i int) {
	name := fmt.Sprintf("push%d", i)
	rng := rand.New(rand.NewPCG(c.Seed, 1000+uint64(i)))
	for range c.Ops {
		c.w.Pause(name, "operation")
		path := fmt.Sprintf("p%d", rng.IntN(len(simPaths)))
		switch rng.IntN(10) {
		case 0, 1, 2, 3:
			c.push(ctx, name, rng, path, rng.IntN(4) == 0)
		case 4, 5:
			c.ensure(ctx, name, rng, path)
		case 6:
			c.delete(ctx, name, rng, path)
		case 7:
			c.pin(ctx, name, rng, path)
		case 8:
			c.unpin(ctx, name, rng, path)
		case 9:
			c.sleep(ctx, name, c.Seed, time.Duration(rng.IntN(5*24))*time.Hour)
		}
	}
}

// fact returns what is known of a path. The caller holds c.mu.
func (c *collecting) fact(path string) *fact {
	if c.known[path] == nil {
		c.known[path] = &fact{}
	}
	return c.known[path]
}

// confirm notes that a path was there at some time after began.
func (c *collecting) confirm(path string, began time.Time, pins bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.fact(path)
	c.note("%s is there since %v", path, began.Format(time.DateTime))
	if began.After(f.used) {
		f.used = began
	}
	if _, intent := c.pins[path]; pins || intent && c.pins[path].Before(began) {
		f.pinned = true
	}
}

// ensure is what a client does with a path that its own refers to: it asks whether it is
// there, which counts as a use, and pushes it if not.
func (c *collecting) ensure(ctx context.Context, name string, rng *rand.Rand, path string) bool {
	cat := c.anyCatalog(name, rng)
	if cat == nil {
		return false
	}
	hp := simPath(path).HashPart()
	began := c.w.now
	for _, last := range []bool{false, true} {
		missing, err := cat.MissingPaths(ctx, simCache, []nix.HashPart{hp})
		c.next(name)
		if err != nil {
			return false
		}
		if len(missing) > 0 {
			return c.push(ctx, name, rng, path, false)
		}
		if last {
			break
		}
		err = cat.RecordUses(ctx, []catalog.PathKey{{Cache: simCache, HashPart: hp}})
		c.next(name)
		if cat = c.anyCatalog(name, rng); err != nil || cat == nil {
			return false
		}
	}
	c.confirm(path, began, false)
	return true
}

// push pushes a path and, before it, what it refers to.
func (c *collecting) push(ctx context.Context, name string, rng *rand.Rand, path string, pins bool) bool {
	for _, ref := range simPaths[path] {
		if !c.ensure(ctx, name, rng, ref) {
			return false
		}
	}
	began := c.w.now
	for attempt := range 4 {
		err := c.publish(ctx, name, rng, path, attempt > 0, pins)
		if errors.Is(err, catalog.ErrChunksMissing) {
			c.mu.Lock()
			c.res.Refused++
			c.mu.Unlock()
			continue
		}
		if err == nil {
			c.confirm(path, began, pins)
			c.mu.Lock()
			c.res.Pushed++
			c.fact(path).loose = !c.fresh(simPaths[path])
			c.mu.Unlock()
		}
		return err == nil
	}
	return false
}

// fresh reports whether paths were used within the retention, so that they cannot have
// gone: a push may take longer than that. The caller holds c.mu.
func (c *collecting) fresh(paths []string) bool {
	return !slices.ContainsFunc(paths, func(p string) bool { return c.w.now.Sub(c.fact(p).used) >= simRetention-time.Hour })
}

// publish stores the chunks that are missing, all of them if the last attempt was
// refused, and publishes.
func (c *collecting) publish(ctx context.Context, name string, rng *rand.Rand, path string, anew, pins bool) error {
	cat := c.anyCatalog(name, rng)
	if cat == nil {
		return errNoAnswer
	}
	chunks := simChunks(path)
	var ids []chunk.ID
	h := sha256.New()
	size := int64(0)
	for _, data := range chunks {
		ids = append(ids, chunk.Sum(data))
		h.Write(data)
		size += int64(len(data))
	}
	epoch, err := cat.UploadEpoch(ctx)
	if err != nil {
		return err
	}
	places, found, err := cat.LookupChunks(ctx, ids)
	if err != nil {
		return err
	}
	id := chunk.PackID{Epoch: epoch, Rand: rng.Uint64()}
	object, np, err := simPack(id, chunks, ids, func(i int) bool { return anew || !found[i] })
	if err != nil {
		return err
	}
	c.linger(ctx, name, rng)
	pub := catalog.Publication{
		Path:   catalog.Path{Cache: simCache, StorePath: simPath(path), NarHash: [32]byte(h.Sum(nil)), NarSize: size, By: name},
		Recipe: chunk.Recipe{Size: size, NarHash: [32]byte(h.Sum(nil)), Served: chunk.Served{Encoder: 1, Size: size}},
	}
	for _, ref := range simPaths[path] {
		pub.Path.References = append(pub.Path.References, simPath(ref))
	}
	if len(np.IDs) > 0 {
		if err := c.upload(ctx, name, id, object); err != nil {
			return err
		}
		pub.Packs = []chunk.NewPack{np}
	}
	c.linger(ctx, name, rng)
	for i := range ids {
		at := places[i]
		if k := slices.Index(np.IDs, ids[i]); k >= 0 {
			at = chunk.Location{Pack: id, Index: uint32(k)}
		}
		pub.Recipe.Runs = append(pub.Recipe.Runs, chunk.Run{Pack: at.Pack, First: at.Index, Count: 1})
	}
	if pins {
		pub.Pin = &catalog.PinChange{Name: path, Policy: &catalog.PinPolicy{KeepForever: true}}
		c.intend(path)
	}
	if cat = c.anyCatalog(name, rng); cat == nil {
		return errNoAnswer
	}
	_, err = cat.Publish(ctx, pub)
	c.next(name)
	return err
}

// next parks an actor whose call of the log has ended, so that the log's own goroutine
// gets to where it waits: a run is a function of its seed only if one goroutine at a
// time has something to do.
func (c *collecting) next(name string) { c.w.Pause(name, "goes on") }

// linger takes its time, as uploads do: for a few steps, or for days.
func (c *collecting) linger(ctx context.Context, name string, rng *rand.Rand) {
	for range rng.IntN(4) {
		c.w.Pause(name, "lingers")
	}
	if rng.IntN(6) == 0 {
		c.sleep(ctx, name, c.Seed, time.Duration(rng.IntN(4*24))*time.Hour)
	}
}

func (c *collecting) upload(ctx context.Context, name string, id chunk.PackID, object []byte) (err error) {
	for range 5 {
		if _, err = c.w.Bucket(name).Put(ctx, pack.Key(id), object); err == nil {
			return nil
		}
	}
	return err
}

// simPack puts the chunks that are wanted into a pack, two a frame.
func simPack(id chunk.PackID, chunks [][]byte, ids []chunk.ID, wanted func(i int) bool) ([]byte, chunk.NewPack, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, chunk.NewPack{}, err
	}
	b := pack.NewBuilder(nil)
	var plain []byte
	var in []chunk.ID
	var sizes []uint32
	flush := func() {
		if len(in) > 0 {
			b.Add(enc.EncodeAll(plain, nil), in, sizes)
		}
		plain, in, sizes = nil, nil, nil
	}
	for i, data := range chunks {
		if !wanted(i) {
			continue
		}
		plain, in, sizes = append(plain, data...), append(in, ids[i]), append(sizes, uint32(len(data)))
		if len(in) == 2 {
			flush()
		}
	}
	flush()
	if b.Chunks() == 0 {
		return nil, chunk.NewPack{}, nil
	}
	object, np := b.Seal(id)
	return object, np, nil
}

func (c *collecting) delete(ctx context.Context, name string, rng *rand.Rand, path string) {
	cat := c.anyCatalog(name, rng)
	if cat == nil {
		return
	}
	c.mu.Lock()
	c.note("%s is deleted", path)
	c.fact(path).withdrawn = true
	c.mu.Unlock()
	w := catalog.Withdrawal{Cache: simCache, HashParts: []nix.HashPart{simPath(path).HashPart()}, Pinned: true, Purge: rng.IntN(2) == 0, Now: rng.IntN(3) == 0}
	_, _ = cat.WithdrawPaths(ctx, w) // done or not, nobody expects the path to be there
}

// intend notes that somebody tries to pin a path.
func (c *collecting) intend(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pins == nil {
		c.pins = map[string]time.Time{}
	}
	if _, ok := c.pins[path]; !ok {
		c.pins[path] = never2
	}
}

// never2 is when a pin was acknowledged that was not.
var never2 = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

func (c *collecting) pin(ctx context.Context, name string, rng *rand.Rand, path string) {
	cat := c.anyCatalog(name, rng)
	if cat == nil {
		return
	}
	c.intend(path)
	_, err := cat.SetPin(ctx, catalog.PinChange{Cache: simCache, Name: path, StorePath: simPath(path), Policy: &catalog.PinPolicy{KeepForever: true}})
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note("%s is pinned, there: %v", path, c.promised(path, map[string]bool{}))
	c.pins[path] = c.w.now
	if c.promised(path, map[string]bool{}) { // it was there when the pin took effect
		c.fact(path).pinned = true
	}
}

func (c *collecting) unpin(ctx context.Context, name string, rng *rand.Rand, path string) {
	cat := c.anyCatalog(name, rng)
	if cat == nil {
		return
	}
	c.mu.Lock()
	c.note("%s is unpinned", path)
	c.fact(path).unpinned = true // whenever it takes effect
	c.mu.Unlock()
	_, _ = cat.RemovePin(ctx, simCache, path) // done or not, nobody expects the pin to be there
}

// reader downloads slowly: it looks everything up, and fetches it when it gets to it.
func (c *collecting) reader(ctx context.Context, i int) {
	name := fmt.Sprintf("read%d", i)
	rng := rand.New(rand.NewPCG(c.Seed, 2000+uint64(i)))
	for range 2 * c.Ops {
		c.w.Pause(name, "operation")
		c.read(ctx, name, rng, fmt.Sprintf("p%d", rng.IntN(len(simPaths))))
	}
}

func (c *collecting) read(ctx context.Context, name string, rng *rand.Rand, path string) {
	cat := c.anyCatalog(name, rng)
	if cat == nil {
		return
	}
	_, err := cat.CatchUp(ctx)
	c.next(name)
	if cat = c.anyCatalog(name, rng); err != nil || cat == nil {
		return
	}
	began := c.w.now
	p, err := cat.Path(ctx, simCache, simPath(path).HashPart())
	c.next(name)
	if err != nil {
		return
	}
	for range rng.IntN(5) {
		c.w.Pause(name, "reads the narinfo")
	}
	if rng.IntN(3) == 0 {
		c.sleep(ctx, name, c.Seed, time.Duration(rng.IntN(2*24))*time.Hour)
	}
	if cat = c.anyCatalog(name, rng); cat == nil {
		return
	}
	r, err := cat.Recipe(ctx, p.NarHash)
	c.next(name)
	if errors.Is(err, catalog.ErrNoRecipe) && c.w.now.Sub(began) < simNarGrace-time.Hour && !c.purged(path) {
		c.violate("%s: the NAR of %s is gone %v after its narinfo was read", name, path, c.w.now.Sub(began))
	}
	if err != nil {
		return
	}
	c.fetch(ctx, name, rng, &r)
}

// purged reports whether a path was deleted for good: then its NAR may go at once.
func (c *collecting) purged(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[path] != nil && c.known[path].withdrawn
}

// fetch reads a NAR whose recipe was looked up just now. What a layout says is looked up
// again if the object is gone, as the chunk store does.
func (c *collecting) fetch(ctx context.Context, name string, rng *rand.Rand, r *chunk.Recipe) {
	began := c.w.now
	h := sha256.New()
	for _, run := range r.Runs {
		for attempt := 0; ; attempt++ {
			cat := c.anyCatalog(name, rng)
			if cat == nil {
				return
			}
			if attempt > 0 {
				_, err := cat.CatchUp(ctx)
				c.next(name)
				if cat = c.anyCatalog(name, rng); err != nil || cat == nil {
					return
				}
			}
			l, err := cat.PackLayout(ctx, run.Pack)
			c.next(name)
			if err == nil {
				for range rng.IntN(4) {
					c.w.Pause(name, "downloads")
				}
				if rng.IntN(4) == 0 { // over a slow line
					c.sleep(ctx, name, c.Seed, time.Duration(rng.IntN(10))*time.Hour)
				}
				err = c.readRun(ctx, name, &l, run, h)
			}
			late := c.w.now.Sub(began) >= simReaderGrace-time.Hour
			gone := errors.Is(err, blob.ErrNotExist) || errors.Is(err, catalog.ErrNoPack)
			if err == nil {
				break
			}
			if gone && attempt < 2 {
				continue
			}
			if gone && !late {
				c.violate("%s: chunk %d of pack %v is gone %v after it was looked up: %v", name, run.First, run.Pack, c.w.now.Sub(began), err)
			}
			return
		}
	}
	if [32]byte(h.Sum(nil)) != r.NarHash {
		c.violate("%s: NAR %x reads back as %x", name, r.NarHash, h.Sum(nil))
	}
	c.mu.Lock()
	c.res.Read++
	c.mu.Unlock()
}

// readAll reads all of a NAR at once.
func (c *collecting) readAll(ctx context.Context, cat *catalog.Catalog, name string, r *chunk.Recipe) error {
	h := sha256.New()
	for _, run := range r.Runs {
		l, err := cat.PackLayout(ctx, run.Pack)
		if err == nil {
			err = c.readRun(ctx, name, &l, run, h)
		}
		if err != nil {
			return err
		}
	}
	if [32]byte(h.Sum(nil)) != r.NarHash {
		return fmt.Errorf("NAR %x reads back as %x", r.NarHash, h.Sum(nil))
	}
	return nil
}

// readRun writes the chunks of a run to w.
func (c *collecting) readRun(ctx context.Context, name string, l *chunk.Layout, run chunk.Run, w io.Writer) error {
	body, _, err := c.w.Bucket(name).Get(ctx, pack.Key(l.Where()))
	if err != nil {
		return err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer dec.Close()
	at := uint32(0)
	for _, f := range l.Frames {
		var plain []byte
		if f.Size > 0 && at < run.First+run.Count && at+f.Chunks > run.First {
			frame := body[f.Offset : f.Offset+f.Size]
			if pack.CRC(frame) != f.Checksum {
				return fmt.Errorf("frame at %d of object %v is damaged", f.Offset, l.Where())
			}
			if plain, err = dec.DecodeAll(frame, nil); err != nil {
				return err
			}
		}
		for i := at; i < at+f.Chunks; i++ {
			size := l.Sizes[i]
			if in := i >= run.First && i < run.First+run.Count; in && size == 0 {
				return fmt.Errorf("chunk %d of pack %v is a hole", i, l.ID)
			} else if in {
				_, _ = w.Write(plain[:size])
			}
			if plain != nil {
				plain = plain[size:]
			}
		}
		at += f.Chunks
	}
	return nil
}
