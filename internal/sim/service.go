package sim

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/wal"
)

// service is what a node of a [Collecting] does for clients, from one start to the next:
// the real catalog and the real chunk store.
type service struct {
	n      *node
	log    *wal.Log
	cat    *catalog.Catalog
	db     *index.DB
	chunks *chunkstore.Store

	handler http.Handler // nil if nobody speaks HTTP
	polled  atomic.Int64 // when it last looked for what others have written, in Unix nanoseconds

	ctx   context.Context //nolint:containedctx // the life of the process
	crash context.CancelFunc

	calls sync.WaitGroup // under way
}

// serve starts what a node does for clients. Nobody has seen the node yet.
func (c *collecting) serve(n *node) error {
	l, st := n.running()
	db := st.(*crashingState).DB
	cat := catalog.New(l, db, catalog.Options{
		Now: func() time.Time { return c.w.time().Add(n.drift) }, Mutants: c.Catalog,
		Rand: c.w.Env(n.name, c.Collecting.Seed*1000+n.seed+n.boots, 0).Rand,
	})
	profile, err := chunk.ParseProfile(simProfile)
	if err != nil {
		return err
	}
	chunks, err := chunkstore.New(c.w.Bucket(n.name), directory{cat, c}, chunkstore.Options{
		Profile: profile, FrameBytes: 3 << 10, PackBytes: 20 << 10, RestoreBytes: -1, ReadAhead: 4 << 10,
		ProofKey: c.proofKey(), WriteBytes: 1 << 20, ReadBytes: 4 << 20, HedgeAfter: -1, Now: c.w.time,
	})
	if err != nil {
		return err
	}
	s := &service{n: n, log: l, cat: cat, db: db, chunks: chunks}
	if c.Deltas > 0 {
		s.handler = c.handler(s)
	}
	s.ctx, s.crash = context.WithCancel(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.services[n] = s
	return nil
}

// unserve ends it as a crash does: calls are broken off.
func (c *collecting) unserve(n *node) {
	c.mu.Lock()
	s := c.services[n]
	delete(c.services, n)
	c.mu.Unlock()
	if s == nil {
		return
	}
	s.crash()
	if c.Deltas > 0 { // commits do not end with the request, as they would in a crash
		_ = s.log.Close() // it never fails
	}
	s.calls.Wait()
	if err := s.chunks.Close(); err != nil {
		c.violate("close the chunk store of %s: %v", n.name, err)
	}
}

// on calls do with the service of a node, and reports whether the node was up.
func (c *collecting) on(n *node, do func(s *service)) bool {
	c.mu.Lock()
	s := c.services[n]
	if s != nil {
		s.calls.Add(1)
	}
	c.mu.Unlock()
	if s == nil {
		return false
	}
	defer s.calls.Done()
	do(s)
	return true
}

// onAny waits for a node that is up.
func (c *collecting) onAny(name string, rng *rand.Rand, do func(s *service)) {
	for range 300 {
		if c.on(c.nodes[rng.IntN(len(c.nodes))], do) {
			return
		}
		c.w.Pause(name, "wait for a node")
	}
}
