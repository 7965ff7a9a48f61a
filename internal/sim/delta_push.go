package sim

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/celler/celler/httpapi/wire"
)

// DeltaResult is what became of pushes by chunks.
type DeltaResult struct {
	Asked     int // queries, batches and commits that were answered
	Lost      int // that were not
	Committed int // paths
	Refused   int // commits, because chunks had gone
	Known     int // paths that were committed though they were there
	Broken    int // pushes that were broken off
	Resumed   int // that went on with receipts of an earlier one
	Joined    int // receipts of NARs
	Pinned    int // paths, by their commits
	Verified  int // paths that were read back from a server
	Thefts    int // attempts to get at what another tenant has
}

func (r *DeltaResult) add(o DeltaResult) {
	r.Asked += o.Asked
	r.Lost += o.Lost
	r.Committed += o.Committed
	r.Refused += o.Refused
	r.Known += o.Known
	r.Broken += o.Broken
	r.Resumed += o.Resumed
	r.Joined += o.Joined
	r.Pinned += o.Pinned
	r.Verified += o.Verified
	r.Thefts += o.Thefts
}

func (r *DeltaResult) idle() bool {
	return slices.Contains([]int{r.Asked, r.Lost, r.Committed, r.Refused, r.Known, r.Broken, r.Resumed, r.Joined, r.Pinned, r.Verified, r.Thefts}, 0)
}

// counted adds to what became of pushes by chunks.
func (c *collecting) counted(do func(r *DeltaResult)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do(&c.res.Delta)
}

// deltaPusher pushes by chunks, some paths at a time, and is broken off, waits for days,
// goes on with what it has, and deletes.
func (c *collecting) deltaPusher(ctx context.Context, i int) {
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 9000+uint64(i)))
	d := c.deltaClient(fmt.Sprintf("delta%d", i), string(simCache), rng)
	d.loss = 0.02
	kept := map[string]*deltaNar{}
	for range c.Collecting.Ops {
		c.w.Pause(d.name, "operation")
		switch rng.IntN(10) {
		default:
			var names []string
			for range 1 + rng.IntN(3) {
				names = c.closure(names, fmt.Sprintf("p%d", rng.IntN(len(simPaths))), rng.IntN(2) == 0)
			}
			d.push(ctx, kept, names)
		case 6:
			c.sleep(ctx, d.name, time.Duration(rng.IntN(5*24))*time.Hour)
		case 7, 8:
			c.delete(d.name, rng, fmt.Sprintf("p%d", rng.IntN(len(simPaths))))
		case 9:
			c.unpin(d.name, rng, fmt.Sprintf("p%d", rng.IntN(len(simPaths))))
		}
	}
}

// closure adds a path to a list, after what it refers to.
func (c *collecting) closure(names []string, name string, refs bool) []string {
	if slices.Contains(names, name) {
		return names
	}
	for _, ref := range simPaths[name] {
		if refs {
			names = c.closure(names, ref, refs)
		}
	}
	return append(names, name)
}

// push pushes paths in one commit. kept are the receipts that it has from before.
func (d *deltaClient) push(ctx context.Context, kept map[string]*deltaNar, names []string) bool {
	c := d.c
	if !d.greet(ctx) {
		return false
	}
	nars := make([]*deltaNar, len(names))
	most := []int{4 << 10, 7 << 10, 1 << 20}[d.rng.IntN(3)]
	for i, name := range names {
		if kept[name] == nil || d.rng.IntN(6) == 0 {
			kept[name] = d.cut(name, most)
		} else {
			c.counted(func(r *DeltaResult) { r.Resumed++ })
		}
		nars[i] = kept[name]
	}
	hurry := d.loss == 0
	broken := false
	between := func() bool {
		if hurry {
			return true
		}
		if broken = d.rng.IntN(40) == 0; broken {
			c.counted(func(r *DeltaResult) { r.Broken++ })
			return false
		}
		c.linger(ctx, d.name, d.rng)
		return true
	}
	pin := "" // the path that it pins
	if !hurry && d.rng.IntN(4) == 0 {
		pin = names[d.rng.IntN(len(names))]
		c.knows(func(f *facts) { f.pinning(pin) })
	}
	refused := time.Time{}
	for range simPatience {
		if !d.fill(ctx, nars, between) {
			return false
		}
		d.drop(nars)
		if n := nars[d.rng.IntN(len(nars))]; d.rng.IntN(3) == 0 && !d.join(ctx, n) || !between() {
			return false
		}
		done, again := d.commit(ctx, nars, pin)
		if !again {
			return done
		}
		hurry = hurry || d.rng.IntN(2) == 0
		if refused.IsZero() {
			refused = c.w.time()
		}
		if !d.careful {
			c.sleep(ctx, d.name, 2*simStale) // by then they have all seen that it is gone
		}
	}
	if took := c.w.time().Sub(refused); took < simCircle {
		c.violate("%s: its commit was refused %d times in %v", d.name, simPatience, took)
	}
	return false
}

// drop lets the receipts of a push get into wrong hands.
func (d *deltaClient) drop(nars []*deltaNar) {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	for _, n := range nars {
		l := loot{nar: n}
		for _, seg := range n.segs {
			l.receipts = append(l.receipts, seg.receipt)
		}
		d.c.loot = append(d.c.loot[max(0, len(d.c.loot)-20):], l)
	}
}

// commitPath is what a commit says of a path.
func (n *deltaNar) commitPath(deriver string, receipts [][]byte) wire.CommitPath {
	p := wire.CommitPath{
		StorePath: simPath(n.name).String(), NarHash: "sha256:" + hex.EncodeToString(n.hash[:]), NarSize: n.size,
		Deriver: deriver, Receipts: receipts,
	}
	for _, ref := range simPaths[n.name] {
		p.References = append(p.References, simPath(ref).Base())
	}
	return p
}

// commit commits paths. Each time that it asks it gives them another deriver, so that what
// is left of an attempt can be told.
func (d *deltaClient) commit(ctx context.Context, nars []*deltaNar, pin string) (done, again bool) {
	c := d.c
	for len(nars) > 0 {
		var try string
		var began moment
		a := d.retrying(ctx, func() *answer {
			began = c.begun()
			try = c.try(d.name)
			return d.call("POST", d.url("commit"), "application/json", commitBody(nars, try, pin))
		})
		if a == nil {
			return false, false // it may have happened
		}
		if a.status == http.StatusConflict {
			c.isRefused(try)
			return false, d.refused(a, nars)
		}
		var result wire.CommitResult
		if !d.decode(a, &result) {
			return false, false
		}
		if result.Committed < 1 || result.Committed > len(nars) || len(result.Paths) != result.Committed {
			c.violate("%s commits %d paths and is told %+v", d.name, len(nars), result)
			return false, false
		}
		d.acknowledged(nars[:result.Committed], pin, began, &result)
		d.verify(ctx, nars[d.rng.IntN(result.Committed)])
		nars = nars[result.Committed:]
	}
	return true, false
}

// commitBody is what asks for a commit.
func commitBody(nars []*deltaNar, try, pin string) []byte {
	var req wire.CommitRequest
	for _, n := range nars {
		p := n.commitPath(try, n.receipts())
		if n.name == pin {
			p.Pin = &wire.PinRequest{Name: pin, Policy: &wire.PinPolicy{KeepForever: true}}
		}
		req.Paths = append(req.Paths, p)
	}
	body, err := json.Marshal(req)
	if err != nil {
		panic(err)
	}
	return body
}

// try returns a deriver that nobody has used.
func (c *collecting) try(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	base := simPath(fmt.Sprintf("%s.%d.drv", name, len(c.tries))).Base()
	c.tries[base] = false
	return base
}

// isRefused notes that nothing of an attempt must ever be seen.
func (c *collecting) isRefused(try string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tries[try] = true
}

// refused forgets the receipts that a refusal names, and reports whether there were any.
func (d *deltaClient) refused(a *answer, nars []*deltaNar) bool {
	d.c.counted(func(r *DeltaResult) { r.Refused++ })
	var e wire.CommitError
	err := json.Unmarshal(a.body.Bytes(), &e)
	ok := err == nil && e.Name == wire.ErrorChunksMissing && len(e.Missing) > 0
	for _, m := range e.Missing {
		ok = ok && m.Path >= 0 && m.Path < len(nars) && len(m.Receipts) > 0
		for k := len(m.Receipts) - 1; ok && k >= 0; k-- {
			ok = nars[m.Path].stale(m.Receipts[k])
		}
	}
	if !ok {
		d.c.violate("%s: its commit is refused with %.300s", d.name, a.body.Bytes())
	}
	return ok
}

// acknowledged notes that paths were committed.
func (d *deltaClient) acknowledged(nars []*deltaNar, pin string, began moment, result *wire.CommitResult) {
	d.c.knows(func(f *facts) {
		for i, n := range nars {
			d.c.note("%s is committed by %s since %v", n.name, d.name, began.at.Format(time.DateTime))
			f.isThere(n.name, began)
			d.c.res.Delta.Committed++
			if result.Paths[i].Kind == wire.CommitPresent {
				d.c.res.Delta.Known++
			}
		}
		for _, n := range nars {
			f.cameToBe(n.name)
			if n.name == pin {
				d.c.res.Delta.Pinned++
				f.isPinned(pin, began)
			}
		}
	})
}
