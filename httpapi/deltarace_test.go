package httpapi_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/catalog"
)

// TestDeltaRaces lets several clients push NARs that share most of their chunks, over two
// servers, while somebody removes chunks at random. Whatever is acknowledged is served, and
// nobody goes round in circles.
func TestDeltaRaces(t *testing.T) {
	a := mkNode(t, nil, withDelta)
	b := mkNode(t, a.bucket, withDelta)
	a.mkCache("ci", false)
	base := mkPath(t, "base", 1, 400_000).NAR
	var clients, remover sync.WaitGroup
	stop := make(chan struct{})
	removed := 0
	for i := range 4 {
		n := []*node{a, b}[i%2]
		clients.Go(func() {
			d := n.deltaClient("ci", n.root())
			d.segment = 100 << 10
			for round := range 4 {
				p := mkPath(t, fmt.Sprintf("p%d-%d", i, round), uint64(1+round%2), 400_000+1000*i)
				rs := make([][]byte, len(d.cut(p.NAR)))
				for tries := 0; ; tries++ {
					d.fill(p.NAR, rs)
					r := d.postCommit(commitPath(p, rs))
					if r.StatusCode == http.StatusOK {
						break
					}
					var e wire.CommitError
					r.want(t, 409, wire.ErrorChunksMissing).json(t, &e)
					if tries == 200 || r.StatusCode != 409 {
						t.Errorf("%s: %s", p.Info.StorePath.Base(), r.body)
						return
					}
					for _, j := range e.Missing[0].Receipts {
						rs[j] = nil
					}
				}
			}
		})
	}
	remover.Go(func() {
		r := rand.New(rand.NewPCG(1, 2))
		segs := (&deltaClient{t: t, segment: 1 << 30, profile: a.deltaClient("ci", a.root()).profile}).cut(base)
		for removed < 40 { // each can undo the work of one client once, so that is an end
			select {
			case <-stop:
				return
			default:
			}
			// Only what no recipe names, or else paths that were acknowledged are lost: a chunk
			// that is pushed and not yet committed.
			p := segs[0].pieces[r.IntN(len(segs[0].pieces))]
			if a.dropUnreferenced(chunk.Sum(p.data)) {
				removed++
			}
		}
	})
	clients.Wait()
	close(stop)
	remover.Wait()
	t.Logf("%d chunks were removed", removed)
	for i := range 4 {
		for round := range 4 {
			p := mkPath(t, fmt.Sprintf("p%d-%d", i, round), uint64(1+round%2), 400_000+1000*i)
			a.wantNar("ci", p)
		}
	}
}

// fill has those segments of a NAR taken in of which there is no receipt.
func (d *deltaClient) fill(nar []byte, receipts [][]byte) {
	d.t.Helper()
	for j, seg := range d.cut(nar) {
		missing := d.missing(d.refs([]segment{seg}))
		for tries := 0; receipts[j] == nil; tries++ {
			lacks := func(r chunk.Ref) bool {
				return missing.Has(slices.IndexFunc(seg.pieces, func(p piece) bool { return p.ref == r }))
			}
			r := d.post(d.batch(lacks, seg))
			if r.StatusCode == http.StatusServiceUnavailable && tries < 200 {
				continue // something went while it was read
			}
			var result wire.BatchResult
			r.want(d.t, 200, "").json(d.t, &result)
			receipts[j] = result.Segments[0].Receipt
			if result.Segments[0].Missing != nil {
				missing = d.missing(d.refs([]segment{seg}))
			}
			if tries == 200 {
				d.t.Fatal("round in circles")
			}
		}
	}
}

// dropUnreferenced removes a chunk as a collector does, in a collection of its own, if no
// recipe names it, and reports whether it did.
func (n *node) dropUnreferenced(id chunk.ID) bool {
	n.t.Helper()
	ctx := n.t.Context()
	m, err := n.cat.BeginMark(ctx)
	must(n.t, err)
	defer func() { must(n.t, m.Close()) }()
	s := m.Snapshot()
	row, there, err := s.Chunk(id)
	must(n.t, err)
	if !there {
		must(n.t, m.End(ctx))
		return false
	}
	for r, err := range s.Recipes() {
		must(n.t, err)
		for _, run := range r.Runs {
			if run.Pack == row.Location.Pack && row.Location.Index-run.First < run.Count && row.Location.Index >= run.First {
				must(n.t, m.End(ctx))
				return false
			}
		}
	}
	dead := []catalog.DeadChunks{{Pack: row.Location.Pack, Chunks: []catalog.DeadChunk{{Index: row.Location.Index, ID: id}}}}
	did, err := m.Condemn(ctx, m.Seen(), dead)
	must(n.t, err)
	must(n.t, m.End(ctx))
	return did.Chunks > 0
}
