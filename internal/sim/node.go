package sim

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// State is what a node of the simulation keeps its copy of the log in.
type State interface {
	wal.State
	Close() error
}

// Disk makes a node's State, again after each restart. A wiped disk begins empty;
// one that is not holds what a crash leaves.
type Disk interface {
	Open(ctx context.Context, bucket blob.Bucket, store wal.StoreID, wipe bool) (State, error)
}

// node is one replica: a disk that survives restarts and a log that does not.
type node struct {
	name    string
	w       *World
	disk    Disk
	drift   time.Duration
	seed    uint64
	mutants wal.Mutants
	hedge   bool
	forward func(ctx context.Context, address string, message []byte) (wal.Seq, error) // nil: it does not
	started func(*node) error                                                          // if not nil, called before others see the node
	ending  func(*node)                                                                // and this when they do not see it any more

	mu    sync.Mutex // guards what follows
	log   *wal.Log   // nil while the node is down
	state State
	boots uint64
}

// start opens the node's state and log.
func (n *node) start(ctx context.Context, wipe bool) error {
	bucket := n.w.Bucket(n.name)
	format, err := wal.ReadFormat(ctx, bucket)
	if err != nil {
		return err
	}
	st, err := n.disk.Open(ctx, bucket, format.Store, wipe)
	if err != nil {
		return fmt.Errorf("open state of %s: %w", n.name, err)
	}
	n.boots++
	n.w.forgetRoot(n.name)
	o := wal.Options{
		Env:     n.w.Env(n.name, n.seed*1000+n.boots, n.drift),
		GiveUp:  30 * time.Second,
		Mutants: n.mutants,
		// Where requests take days because others sleep, twice what is usual is soon centuries.
		HedgeAfter: -1,
	}
	if n.hedge {
		o.HedgeAfter, o.HedgeShare = 5*time.Millisecond, 1
	}
	if n.forward != nil {
		o.Address, o.Forward = n.name, n.forward
	}
	l, err := wal.Open(ctx, bucket, st, o)
	if err != nil {
		return join(err, st.Close())
	}
	n.mu.Lock()
	n.log, n.state = l, st
	n.mu.Unlock()
	if n.started != nil {
		return n.started(n)
	}
	return nil
}

// stop ends the node as a crash would: what is in flight stays in flight.
func (n *node) stop() error {
	n.mu.Lock()
	l, st := n.log, n.state
	n.log, n.state = nil, nil
	n.mu.Unlock()
	if l == nil {
		return nil
	}
	if n.ending != nil {
		n.ending(n)
	}
	return join(l.Close(), st.Close())
}

// running returns the node's log and state, or nil while it is down.
func (n *node) running() (*wal.Log, State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log, n.state
}

func join(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
