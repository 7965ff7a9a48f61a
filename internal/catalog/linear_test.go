package catalog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal/waltest"
)

type verb int

const (
	publish  verb = iota // output: ""
	withdraw             // output: "", or absent if there was no such path
	fresh                // a look after a catch-up; output: who published it, or absent
	look                 // a look without; may be stale, but must not deny what is there
)

const (
	absent  = "absent"
	perhaps = "perhaps" // a change of unknown outcome: it takes effect at some time, or after all looks
)

type input struct {
	verb verb
	path int
	by   string
}

// pathModel is a register per path, which starts out absent.
var pathModel = porcupine.Model{ //nolint:gochecknoglobals // a constant
	Partition: func(h []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, linearPaths)
		for _, o := range h {
			p := o.Input.(input).path
			parts[p] = append(parts[p], o)
		}
		return parts
	},
	Init: func() any { return absent },
	Step: func(state, in, out any) (bool, any) {
		i, o, s := in.(input), out.(string), state.(string)
		switch i.verb {
		case publish:
			return true, i.by
		case withdraw:
			if o == absent {
				return s == absent, s
			}
			return s != absent || o == perhaps, absent
		case look:
			return o != absent || s == absent, s
		default:
			return o == s, s
		}
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprint(in, " -> ", out) },
}

const (
	linearPaths   = 2
	linearClients = 6
	linearOps     = 12
)

// TestLinearizable lets clients publish, withdraw and look up the same few paths
// through three nodes, over a slow bucket that loses requests and answers, and
// wants one order that explains everything they saw.
func TestLinearizable(t *testing.T) {
	for seed := range uint64(15) {
		synctest.Test(t, func(t *testing.T) {
			h := runClients(t, seed)
			if res, info := porcupine.CheckOperationsVerbose(pathModel, h, 0); res != porcupine.Ok {
				t.Errorf("seed %d: no order explains this history of %d operations: %v", seed, len(h), info.PartialLinearizationsOperations())
			}
		})
	}
}

func runClients(t *testing.T, seed uint64) []porcupine.Operation {
	bucket := mkBucket(t)
	var nodes []*node
	for i := range uint64(3) {
		faulty := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{
			Decide: blobtest.Seeded(seed*3+i, 0.15, blobtest.LostRequest, blobtest.LostResponse, blobtest.DelayedApply),
		})
		n := &node{t: t, bucket: waltest.NewLaggy(faulty, seed*3+i, 40*time.Millisecond), fs: vfs.NewMem()}
		for n.tryOpen(t.Context()) != nil { // until the faults let it
		}
		defer n.close()
		nodes = append(nodes, n)
	}
	for {
		_, err := nodes[0].CreateCache(t.Context(), Cache{Name: "ci"})
		if err == nil || errors.Is(err, ErrCacheExists) {
			break
		}
	}
	var mu sync.Mutex
	var history []porcupine.Operation
	var wg sync.WaitGroup
	var clock atomic.Int64
	for c := range linearClients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(c)))
			for i := range linearOps {
				n := nodes[r.IntN(3)]
				in := input{verb: verb(r.IntN(4)), path: r.IntN(linearPaths), by: fmt.Sprintf("c%d.%d", c, i)}
				op := porcupine.Operation{ClientId: c, Input: in, Call: clock.Add(1)}
				out, keep, unknown := n.perform(t, in, seed<<32|uint64(c)<<16|uint64(i))
				if op.Return = clock.Add(1); unknown {
					op.Return = math.MaxInt64
					op.ClientId = linearClients + c*linearOps + i // this client's ends here
				}
				op.Output = out
				mu.Lock()
				if keep {
					history = append(history, op)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return history
}

// perform does one operation. keep is false if it is known to have done nothing
// and seen nothing, unknown is true if it may have happened or may yet.
func (n *node) perform(t *testing.T, in input, pack uint64) (out string, keep, unknown bool) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	sp := mkStorePath(t, fmt.Sprint("p", in.path))
	var err error
	switch in.verb {
	case publish:
		pub := mkPublication(t, "ci", sp.Name(), mkPack(1, pack, 1))
		pub.Path.By = in.by
		_, err = n.Publish(ctx, pub)
	case withdraw:
		_, err = n.Withdraw(ctx, "ci", sp.HashPart())
	case fresh:
		if _, err = n.CatchUp(ctx); err == nil {
			out, err = n.lookAt(ctx, sp.HashPart())
		}
	case look:
		out, err = n.lookAt(ctx, sp.HashPart())
	}
	switch {
	case err == nil:
		return out, true, false
	case errors.Is(err, ErrNoPath):
		return absent, true, false
	case in.verb <= withdraw && errors.Is(err, ErrUnknown):
		return perhaps, true, true
	}
	return "", false, false
}

func (n *node) lookAt(ctx context.Context, hp nix.HashPart) (string, error) {
	p, err := n.Path(ctx, "ci", hp)
	return p.By, err
}
