package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/internal/fsck"
)

// checker checks the store again and again while everything goes on, and would repair what
// it found. There is nothing to be found.
func (c *collecting) checker(ctx context.Context, i int) {
	name := fmt.Sprintf("check%d", i)
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 8000+uint64(i)))
	for range 3 {
		c.sleep(ctx, name, time.Duration(rng.IntN(5*24))*time.Hour)
		c.w.Pause(name, "check")
		c.onAny(name, rng, func(s *service) {
			c.check(s, name, c.w.Bucket(s.n.name), fsck.Mode{Read: fsck.Read{All: true}, Repair: rng.IntN(2) == 0})
			c.next(name)
		})
	}
}

// check wants the store to be sound. What was not answered is not looked at.
func (c *collecting) check(s *service, when string, log blob.Bucket, mode fsck.Mode) {
	mode.Each = func(f fsck.Finding) error {
		if f.Kind != fsck.Unread {
			c.violate("%s: a check finds %s: %s: %s", when, f.Kind, f.What, f.Problem)
		}
		return nil
	}
	rep, err := fsck.New(s.cat, s.chunks, fsck.Options{Log: log}).Check(s.ctx, mode)
	c.note("%s: %d objects read, found %v: %v", when, rep.Read, rep.Found, err)
	if rep.Strays > 0 {
		c.violate("%s: rows of %d chunks lead nowhere", when, rep.Strays)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && rep.Read > 0 {
		c.res.Checked++
	}
}
