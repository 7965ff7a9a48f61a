package sim

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// verify reads back, from every node, a path that was acknowledged.
func (d *deltaClient) verify(ctx context.Context, n *deltaNar) {
	for _, at := range d.c.nodes {
		k := d.caller
		k.node, k.loss, k.careful = at, 0, true
		k.readBack(ctx, n.name, false)
	}
}

// readBack reads a path as Nix does: it must be what was pushed, and there unless somebody
// may have removed it. If a node must answer, it is an error if it does not.
func (k *caller) readBack(ctx context.Context, name string, must bool) {
	c := k.c
	promised, began := false, c.begun()
	c.knows(func(f *facts) { promised = f.promised(name) })
	a := k.call("GET", fmt.Sprintf("/%s/%s.narinfo", simCache, simPath(name).HashPart()), "", nil)
	switch {
	case a == nil || a.status >= http.StatusInternalServerError:
		if must && a != nil {
			c.violate("%s is not told of %s: %d %.300s", k.name, name, a.status, a.body.Bytes())
		}
		return
	case a.status == http.StatusNotFound:
		c.knows(func(f *facts) {
			if promised && f.promised(name) && f.of(name).removal.before(began.step) {
				c.violate("%s: %s was promised and is not there", k.name, name)
			}
		})
		return
	case a.status != http.StatusOK:
		c.violate("%s: the narinfo of %s: %d %.300s", k.name, name, a.status, a.body.Bytes())
		return
	}
	info, err := nix.ParseNarInfo(a.body.Bytes())
	if err != nil {
		c.violate("%s: the narinfo of %s: %v", k.name, name, err)
		return
	}
	a = k.call("GET", fmt.Sprintf("/%s/%s", simCache, info.URL), "", nil)
	if a == nil || a.status != http.StatusOK {
		if must && a != nil {
			c.violate("%s: the NAR of %s: %d %.300s", k.name, name, a.status, a.body.Bytes())
		}
		return
	}
	plain, err := unzstd(a.body.Bytes())
	if err != nil || !bytes.Equal(plain, c.nar(name)) {
		c.violate("%s: the NAR of %s is not what was pushed: %d bytes, %v", k.name, name, len(plain), err)
	}
	c.counted(func(r *DeltaResult) { r.Verified++ })
}

func unzstd(p []byte) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return dec.DecodeAll(p, nil)
}

// auditReplicas wants every node that is up to have what was promised, and to give it out.
func (c *collecting) auditReplicas(ctx context.Context) {
	if c.Deltas == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 9900))
	for _, n := range c.nodes {
		k := &caller{c: c, name: "audit", token: c.token("audit", string(simCache)), rng: rng, node: n}
		if !c.on(n, func(s *service) { _, _ = s.cat.CatchUp(s.ctx) }) {
			continue
		}
		for name := range len(simPaths) {
			k.readBack(ctx, fmt.Sprintf("p%d", name), true)
		}
	}
}

// pushAgain has everything pushed once more, now that nothing goes wrong: that ends.
func (c *collecting) pushAgain(ctx context.Context, n *node) {
	if c.Deltas == 0 {
		return
	}
	d := c.deltaClient("again", string(simCache), rand.New(rand.NewPCG(c.Collecting.Seed, 9901)))
	d.node = n
	kept := map[string]*deltaNar{}
	for name := range len(simPaths) {
		if !d.push(ctx, kept, []string{fmt.Sprintf("p%d", name)}) {
			c.violate("p%d cannot be pushed although nothing goes wrong", name)
		}
	}
}

// auditTry wants nothing to be there of a commit that was refused.
func (c *collecting) auditTry(p *catalog.Path, when string) {
	c.mu.Lock()
	refused := c.tries[p.Deriver]
	c.mu.Unlock()
	if refused {
		c.violate("%s: %s is there by a commit that was refused: %s", when, p.StorePath.Name(), p.Deriver)
	}
}

// auditOther wants the cache of those who have no bytes to be empty.
func (c *collecting) auditOther(snap *catalog.Snapshot, when string) {
	if c.Deltas == 0 {
		return
	}
	cache, ok, err := snap.Cache(otherCache)
	if !ok || err != nil {
		c.violate("%s: the other cache is there: %v, %v", when, ok, err)
		return
	}
	for p, err := range snap.Paths(cache.ID) {
		c.violate("%s: the other tenant has %s: %v", when, p.StorePath.Name(), err)
	}
}
