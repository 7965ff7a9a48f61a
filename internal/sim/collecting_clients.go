package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

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

// simNar is the NAR of a path. It is made of parts, some of which others have, too.
func simNar(name string) []byte {
	i := int(name[1] - '0')
	var nar []byte
	for _, n := range []int{i, i + 1, 20 + i*7%10, 20 + i%3} {
		part := make([]byte, 3<<10)
		_, _ = rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "part %d", n))).Read(part)
		nar = append(nar, part...)
	}
	return nar
}

// pusher pushes, uses, pins and deletes.
func (c *collecting) pusher(ctx context.Context, i int) {
	name := fmt.Sprintf("push%d", i)
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 1000+uint64(i)))
	for range c.Collecting.Ops {
		c.w.Pause(name, "operation")
		path := fmt.Sprintf("p%d", rng.IntN(len(simPaths)))
		switch rng.IntN(10 + c.Deletes) {
		default:
			c.delete(name, rng, path)
		case 0, 1, 2, 3:
			c.push(name, rng, path, rng.IntN(4) == 0)
		case 4, 5:
			c.ensure(name, rng, path)
		case 6:
			c.delete(name, rng, path)
		case 7:
			c.pin(name, rng, path)
		case 8:
			c.unpin(name, rng, path)
		case 9:
			c.sleep(ctx, name, time.Duration(rng.IntN(5*24))*time.Hour)
		}
	}
}

// knows calls do with what clients know.
func (c *collecting) knows(do func(f *facts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do(c.facts)
}

// begun returns this moment.
func (c *collecting) begun() (m moment) {
	c.knows(func(f *facts) { m = f.now() })
	return m
}

// ensure is what a client does with a path that its own refers to: it asks whether it is
// there, which counts as a use, and pushes it if not. A node that has recorded the use
// looks once more, because the path may have gone before.
func (c *collecting) ensure(name string, rng *rand.Rand, path string) (done bool) {
	began, missing := c.begun(), false
	c.onAny(name, rng, func(s *service) {
		hp := []nix.HashPart{simPath(path).HashPart()}
		err := error(nil)
		for _, last := range []bool{false, true} {
			var gone []nix.HashPart
			gone, err = s.cat.MissingPaths(s.ctx, simCache, hp)
			c.next(name)
			if missing = err == nil && len(gone) > 0; err != nil || missing || last {
				break
			}
			err = s.cat.RecordUses(s.ctx, []catalog.PathKey{{Cache: simCache, HashPart: hp[0]}})
			if c.next(name); err != nil {
				break
			}
		}
		done = err == nil && !missing
	})
	if missing {
		return c.push(name, rng, path, false)
	}
	if done {
		c.note("%s is there since %v", path, began.at.Format(time.DateTime))
		c.knows(func(f *facts) { f.isThere(path, began) })
	}
	return done
}

// push pushes a path and, before it, what it refers to.
func (c *collecting) push(name string, rng *rand.Rand, path string, pins bool) bool {
	for _, ref := range simPaths[path] {
		if !c.ensure(name, rng, ref) {
			return false
		}
	}
	began := c.begun()
	for range 4 {
		err := errNoAnswer
		c.onAny(name, rng, func(s *service) { err = c.publish(s, name, rng, path, pins) })
		if errors.Is(err, catalog.ErrChunksMissing) {
			c.mu.Lock()
			c.res.Refused++
			c.mu.Unlock()
			continue
		}
		if err == nil {
			c.note("%s is pushed since %v, pinned %v", path, began.at.Format(time.DateTime), pins)
			c.knows(func(f *facts) {
				c.res.Pushed++
				f.isThere(path, began)
				f.cameToBe(path)
				if pins {
					f.isPinned(path, began)
				}
			})
		}
		return err == nil
	}
	return false
}

// publish stores the chunks that are missing and publishes, or publishes a NAR that is
// known, as servers do.
func (c *collecting) publish(s *service, name string, rng *rand.Rand, path string, pins bool) error {
	nar := c.nar(path)
	sum := sha256.Sum256(nar)
	pub := catalog.Publication{Path: catalog.Path{Cache: simCache, StorePath: simPath(path), NarHash: sum, NarSize: int64(len(nar)), By: name}}
	for _, ref := range simPaths[path] {
		pub.Path.References = append(pub.Path.References, simPath(ref))
	}
	known, err := s.cat.Recipe(s.ctx, sum)
	c.next(name)
	switch {
	case err == nil && !s.chunks.WasRefused(&known):
		pub.Recipe = known
	case err != nil && !errors.Is(err, catalog.ErrNoRecipe):
		return err
	default:
		slow := context.WithValue(s.ctx, lingering{}, func() { c.linger(s.ctx, name, rng) })
		res, err := s.chunks.Write(slow, bytes.NewReader(nar))
		if c.next(name); err != nil {
			return err
		}
		pub.Recipe, pub.Packs = res.Recipe, res.Packs
	}
	c.linger(s.ctx, name, rng)
	if pins {
		pub.Pin = &catalog.PinChange{Name: path, Policy: &catalog.PinPolicy{KeepForever: true}}
		c.knows(func(f *facts) { f.pinning(path) })
	}
	_, err = s.cat.Publish(s.ctx, pub)
	c.next(name)
	if errors.Is(err, catalog.ErrChunksMissing) {
		s.chunks.Refused(&pub.Recipe)
	}
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
		c.sleep(ctx, name, time.Duration(rng.IntN(4*24))*time.Hour)
	}
}

func (c *collecting) delete(name string, rng *rand.Rand, path string) {
	w := catalog.Withdrawal{Cache: simCache, HashParts: []nix.HashPart{simPath(path).HashPart()}, Pinned: true, Purge: rng.IntN(3) == 0, Now: rng.IntN(6) == 0}
	c.onAny(name, rng, func(s *service) {
		var end func(error)
		c.knows(func(f *facts) {
			c.note("%s is deleted: %+v", path, w)
			end = f.removing(path)
			f.of(path).purged = f.of(path).purged || w.Purge || w.Now
		})
		_, err := s.cat.WithdrawPaths(s.ctx, w)
		c.knows(func(*facts) { end(err) })
	})
}

func (c *collecting) pin(name string, rng *rand.Rand, path string) {
	c.onAny(name, rng, func(s *service) {
		began := c.begun()
		c.knows(func(f *facts) { f.pinning(path) })
		_, err := s.cat.SetPin(s.ctx, catalog.PinChange{Cache: simCache, Name: path, StorePath: simPath(path), Policy: &catalog.PinPolicy{KeepForever: true}})
		if err == nil {
			c.knows(func(f *facts) {
				c.note("%s is pinned, there: %v", path, f.promised(path))
				f.isPinned(path, began)
			})
		}
	})
}

func (c *collecting) unpin(name string, rng *rand.Rand, path string) {
	c.onAny(name, rng, func(s *service) {
		var end func(error)
		c.knows(func(f *facts) {
			c.note("%s is unpinned", path)
			end = f.unpinning(path)
		})
		_, err := s.cat.RemovePin(s.ctx, simCache, path)
		if errors.Is(err, catalog.ErrNoPin) {
			err = nil
		}
		c.knows(func(*facts) { end(err) })
	})
}

// reader downloads slowly: it looks everything up, and fetches it when it gets to it.
func (c *collecting) reader(ctx context.Context, i int) {
	name := fmt.Sprintf("read%d", i)
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 2000+uint64(i)))
	for range 2 * c.Collecting.Ops {
		c.w.Pause(name, "operation")
		n := c.nodes[rng.IntN(len(c.nodes))]
		path := fmt.Sprintf("p%d", rng.IntN(len(simPaths)))
		began, there := c.begun(), false
		c.on(n, func(s *service) {
			_, err := s.cat.CatchUp(s.ctx)
			if c.next(name); err != nil {
				return
			}
			_, err = s.cat.Path(s.ctx, simCache, simPath(path).HashPart())
			c.next(name)
			there = err == nil
		})
		if !there {
			continue
		}
		for range rng.IntN(5) {
			c.w.Pause(name, "has read the narinfo")
		}
		if rng.IntN(2) == 0 {
			c.sleep(ctx, name, time.Duration(rng.IntN(70))*time.Hour)
		}
		c.on(n, func(s *service) { c.fetch(s, name, rng, path, began) })
	}
}

// fetch reads the NAR of a path whose narinfo somebody has read.
func (c *collecting) fetch(s *service, name string, rng *rand.Rand, path string, asked moment) {
	began := c.w.time()
	_, err := s.cat.CatchUp(s.ctx)
	if c.next(name); err != nil {
		return
	}
	r, err := s.cat.Recipe(s.ctx, sha256.Sum256(c.nar(path)))
	c.next(name)
	if errors.Is(err, catalog.ErrNoRecipe) && c.w.time().Sub(asked.at) < simNarGrace-time.Hour {
		c.knows(func(f *facts) {
			if f.of(path).removal.before(asked.step) || !f.of(path).purged {
				c.violate("%s: the NAR of %s is gone %v after its narinfo was read", name, path, c.w.time().Sub(asked.at))
			}
		})
	}
	if err != nil {
		return
	}
	c.next(name)
	if rng.IntN(3) == 0 { // others are served first
		c.sleep(s.ctx, name, time.Duration(rng.IntN(22))*time.Hour)
	}
	err = c.readServed(s, &r, func() {
		for range rng.IntN(3) {
			c.w.Pause(name, "downloads")
		}
		if rng.IntN(4) == 0 { // over a slow line
			c.sleep(s.ctx, name, time.Duration(rng.IntN(10))*time.Hour)
		}
	})
	c.next(name)
	took := c.w.time().Sub(began)
	if s.ctx.Err() != nil || blob.KindOf(err) == blob.KindUnreachable || errors.Is(err, context.Canceled) {
		return
	}
	if err != nil && (took < simReaderGrace-time.Hour || !errors.Is(err, blob.ErrNotExist) && !errors.Is(err, catalog.ErrNoPack)) {
		c.violate("%s: the NAR of %s cannot be read %v after its recipe: %v", name, path, took, err)
	}
	if err == nil {
		c.mu.Lock()
		c.res.Read++
		c.mu.Unlock()
	}
}

// readServed reads the served form of a NAR, which must be what it always was.
func (c *collecting) readServed(s *service, r *chunk.Recipe, pause func()) error {
	f, err := s.chunks.Open(s.ctx, r)
	if err != nil {
		return err
	}
	h := sha256.New()
	buf := make([]byte, 4<<10)
	size := int64(0)
	for {
		n, err := f.Read(buf)
		size += int64(n)
		_, _ = h.Write(buf[:n])
		if err == io.EOF { //nolint:errorlint // only the bare one is the end
			break
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
		pause()
	}
	if err := f.Close(); err != nil {
		return err
	}
	key, sum := sha256.Sum256([]byte(chunkstore.ETag(r))), [32]byte(h.Sum(nil))
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, ok := c.served[key]; ok && was != sum {
		return fmt.Errorf("what is served of NAR %x was %x and is %x", r.NarHash, was, sum)
	}
	c.served[key] = sum
	if size != r.Served.Size {
		return fmt.Errorf("NAR %x is served as %d bytes, announced are %d", r.NarHash, size, r.Served.Size)
	}
	return nil
}

// readPlain reads a NAR.
func (c *collecting) readPlain(s *service, r *chunk.Recipe) error {
	f, err := s.chunks.Plain(s.ctx, r)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if sum := [32]byte(h.Sum(nil)); sum != r.NarHash {
		return fmt.Errorf("NAR %x reads back as %x", r.NarHash, sum)
	}
	return nil
}
