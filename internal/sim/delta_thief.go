package sim

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/httpapi/wire"
)

// loot is what somebody else has got for the chunks of a NAR.
type loot struct {
	nar      *deltaNar
	receipts [][]byte
}

// thief has a cache of its own, and no bytes. It knows all hashes: those of NARs, of chunks, and
// what SHA-256 has come to between any two; it has seen receipts of others, and it has the
// end of a NAR. It wants the NARs.
func (c *collecting) thief(ctx context.Context, i int) {
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 9500+uint64(i)))
	d := c.deltaClient(fmt.Sprintf("thief%d", i), otherCache, rng)
	for range c.Collecting.Ops {
		c.w.Pause(d.name, "operation")
		if rng.IntN(3) == 0 {
			c.sleep(ctx, d.name, time.Duration(rng.IntN(3*24))*time.Hour)
		}
		if !d.greet(ctx) {
			continue
		}
		victim := d.cut(fmt.Sprintf("p%d", rng.IntN(len(simPaths))), 4<<10)
		switch rng.IntN(5) {
		case 0:
			d.guess(ctx, victim)
		case 1:
			d.name0(ctx, victim)
		case 2:
			d.useLoot(ctx)
		case 3:
			d.end(ctx, victim, false)
		case 4:
			d.end(ctx, victim, true)
		}
		c.counted(func(r *DeltaResult) { r.Thefts++ })
		d.look(victim)
	}
}

// forged is a reference to a chunk by somebody who knows its id.
func (d *deltaClient) forged(p *deltaPiece, how int) chunk.Ref {
	ref := chunk.Ref{Name: p.ref.Name}
	sum := sha256.Sum256(append(append(p.id[:len(p.id):len(p.id)], 1), d.key[:]...))
	switch how {
	case 1:
		ref.Proof = chunk.Proof(p.id[8:16])
	case 2:
		ref.Proof = chunk.Proof(sum[:8])
	case 3:
		ref.Proof = chunk.Proof(p.ref.Name)
	}
	return ref
}

// guess asks for chunks without knowing their proofs.
func (d *deltaClient) guess(ctx context.Context, victim *deltaNar) {
	var refs []chunk.Ref
	for _, seg := range victim.segs {
		for i := range seg.pieces {
			refs = append(refs, d.forged(&seg.pieces[i], d.rng.IntN(4)))
		}
	}
	a := d.retrying(ctx, func() *answer {
		return d.call("POST", d.url("missing"), wire.DeltaContentType, wire.AppendRefs(nil, refs))
	})
	if a == nil {
		return
	}
	for i := range refs {
		if !wire.Bitmap(a.body.Bytes()).Has(i) {
			d.c.violate("%s is told that a chunk is there of which it knows the id", d.name)
			return
		}
	}
}

// name0 names chunks without knowing their proofs, and commits what it gets for that.
func (d *deltaClient) name0(ctx context.Context, victim *deltaNar) {
	how := d.rng.IntN(4)
	body := wire.AppendBatch(nil)
	for _, seg := range victim.segs {
		refs := make([]chunk.Ref, len(seg.pieces))
		for i := range refs {
			refs[i] = d.forged(&seg.pieces[i], how)
		}
		body = wire.AppendSegmentEnd(wire.AppendKnown(wire.AppendSegment(body, seg.from), refs))
	}
	var receipts [][]byte
	for _, r := range d.results(ctx, body, len(victim.segs)) {
		if r.Receipt != nil {
			receipts = append(receipts, r.Receipt)
		}
	}
	if len(receipts) > 0 {
		d.c.note("%s has %d receipts", d.name, len(receipts))
		d.take(ctx, victim, receipts)
	}
}

// results sends a batch.
func (d *deltaClient) results(ctx context.Context, body []byte, n int) []wire.SegmentResult {
	a := d.retrying(ctx, func() *answer { return d.call("POST", d.url("chunks"), wire.DeltaContentType, body) })
	var result wire.BatchResult
	if a == nil || !d.decode(a, &result) || len(result.Segments) != n {
		return nil
	}
	return result.Segments
}

// useLoot commits with the receipts of others.
func (d *deltaClient) useLoot(ctx context.Context) {
	d.c.mu.Lock()
	var l loot
	if n := len(d.c.loot); n > 0 {
		l = d.c.loot[d.rng.IntN(n)]
	}
	d.c.mu.Unlock()
	if l.nar != nil {
		d.take(ctx, l.nar, l.receipts)
		d.look(l.nar)
	}
}

// end sends the end of a NAR, which it has, in the state that the hash is in before it:
// alone, or after other bytes, as many as are before it.
func (d *deltaClient) end(ctx context.Context, victim *deltaNar, filled bool) {
	last := victim.segs[len(victim.segs)-1]
	segs := []*deltaSegment{last}
	if filled {
		first := &deltaSegment{}
		for rest := last.from.Length(); rest > 0; {
			data := make([]byte, min(rest, int64(d.info.ChunkAvg)))
			_, _ = rand.NewChaCha8([32]byte{byte(d.rng.Uint32())}).Read(data)
			id, proof := d.key.Sum(data)
			first.pieces = append(first.pieces, deltaPiece{data: data, id: id, ref: chunk.Ref{Name: id.Name(), Proof: proof}})
			rest -= int64(len(data))
		}
		segs = []*deltaSegment{first, last}
	}
	lacks := map[chunk.Ref]bool{}
	forged := *victim
	forged.size = 0
	for _, seg := range segs {
		for _, p := range seg.pieces {
			lacks[p.ref] = true
			forged.size += int64(len(p.data))
		}
	}
	var receipts [][]byte
	for _, r := range d.results(ctx, d.batch(segs, lacks), len(segs)) {
		receipts = append(receipts, r.Receipt)
	}
	if len(receipts) > 0 {
		d.take(ctx, &forged, receipts)
	}
}

// take commits a path that it has no right to have.
func (d *deltaClient) take(ctx context.Context, n *deltaNar, receipts [][]byte) {
	taken := &deltaNar{name: n.name, size: n.size, hash: n.hash}
	for _, r := range receipts {
		taken.segs = append(taken.segs, &deltaSegment{receipt: r})
	}
	body := commitBody([]*deltaNar{taken}, "", "")
	a := d.retrying(ctx, func() *answer { return d.call("POST", d.url("commit"), "application/json", body) })
	if a != nil && a.status != http.StatusUnprocessableEntity {
		d.c.violate("%s commits %s with receipts that do not show that it has the NAR: %d %.300s", d.name, n.name, a.status, a.body.Bytes())
	}
}

// look looks whether it has got the bytes, and whether it is let into the other cache.
func (d *deltaClient) look(n *deltaNar) {
	hashPart := simPath(n.name).HashPart()
	for _, path := range []string{
		fmt.Sprintf("/%s/%s.narinfo", otherCache, hashPart), fmt.Sprintf("/%s/nar/%s.nar", otherCache, hashPart),
		fmt.Sprintf("/%s/%s.narinfo", simCache, hashPart), fmt.Sprintf("/_api/v1/delta/%s?version=1", simCache),
	} {
		if a := d.call("GET", path, "", nil); a != nil && a.status < http.StatusBadRequest {
			d.c.violate("%s gets %s: %.300s", d.name, path, a.body.Bytes())
		}
	}
}
