package httpapi

import (
	"context"
	"fmt"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// maxHoldingPaths bounds the paths that one count of what pins hold keeps in memory:
// 100 bytes for each, and as much again for its references.
const maxHoldingPaths = 2_000_000

// holdingSteps is how many paths each path may be met as, on the average, in the walks
// of all pins together: the work is bounded by this times the bound on paths.
const holdingSteps = 25

// heldPath is what counting needs to know of a path.
type heldPath struct {
	refs      []nix.HashPart
	narBytes  int64
	fileBytes int64
}

// holdings counts what pins keep alive. It reads each path once, however many pins
// reach it, and then walks the graph in memory, once for each pin.
type holdings struct {
	lookup func(nix.HashPart) (heldPath, bool, error)
	limit  int

	number map[nix.HashPart]int32 // of a path; -1: it is not there
	nodes  []heldNode
	steps  int // of walks
}

type heldNode struct {
	refs      []int32
	narBytes  int64
	fileBytes int64
	seenBy    int32 // the last pin that reached it, counted from 1
	pins      int32 // how many did, as far as 2
}

// tooManyError reports that the pins of a cache reach more paths than are counted.
type tooManyError struct{ limit int }

func (e *tooManyError) Error() string {
	return fmt.Sprintf("pins reach more than %d paths, or reach them too often", e.limit)
}

// countHoldings returns, for the roots of each pin, what they hold and the part of it
// that no other pin does. It gives up with a *tooManyError, or when ctx ends.
func countHoldings(ctx context.Context, pins [][]nix.HashPart, limit int, lookup func(nix.HashPart) (heldPath, bool, error)) (closures, only []wire.Holding, err error) {
	h := holdings{lookup: lookup, limit: limit, number: map[nix.HashPart]int32{}}
	for _, roots := range pins {
		for _, root := range roots {
			if err := h.load(ctx, root); err != nil {
				return nil, nil, err
			}
		}
	}
	closures, only = make([]wire.Holding, len(pins)), make([]wire.Holding, len(pins))
	for i, roots := range pins {
		h.walk(int32(i+1), roots, &closures[i])
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if h.steps > holdingSteps*limit {
			return nil, nil, &tooManyError{limit}
		}
	}
	for i := range h.nodes {
		if n := &h.nodes[i]; n.pins == 1 {
			n.add(&only[n.seenBy-1])
		}
	}
	return closures, only, nil
}

// load reads the closure of a path, as far as it is not known yet.
func (h *holdings) load(ctx context.Context, root nix.HashPart) error {
	type pending struct {
		node int32
		refs []nix.HashPart
	}
	var queue []pending
	// see gives a path its number, -1 if it is not there.
	see := func(hashPart nix.HashPart) (int32, error) {
		if n, known := h.number[hashPart]; known {
			return n, nil
		}
		p, ok, err := h.lookup(hashPart)
		if err != nil {
			return 0, err
		}
		if !ok {
			h.number[hashPart] = -1
			return -1, nil
		}
		if len(h.nodes) >= h.limit {
			return 0, &tooManyError{h.limit}
		}
		n := int32(len(h.nodes))
		h.number[hashPart] = n
		h.nodes = append(h.nodes, heldNode{narBytes: p.narBytes, fileBytes: p.fileBytes})
		if len(p.refs) > 0 {
			queue = append(queue, pending{n, p.refs})
		}
		return n, nil
	}
	if _, err := see(root); err != nil {
		return err
	}
	for len(queue) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		next := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		refs := make([]int32, 0, len(next.refs))
		for _, ref := range next.refs {
			n, err := see(ref)
			if err != nil {
				return err
			}
			if n >= 0 && n != next.node {
				refs = append(refs, n)
			}
		}
		h.nodes[next.node].refs = refs
	}
	return nil
}

// walk counts what one pin reaches.
func (h *holdings) walk(pin int32, roots []nix.HashPart, to *wire.Holding) {
	var queue []int32
	reach := func(n int32) {
		if n < 0 || h.nodes[n].seenBy == pin {
			return
		}
		node := &h.nodes[n]
		node.seenBy = pin
		node.pins = min(node.pins+1, 2)
		node.add(to)
		h.steps++
		queue = append(queue, n)
	}
	for _, root := range roots {
		reach(h.number[root])
	}
	for len(queue) > 0 {
		n := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, ref := range h.nodes[n].refs {
			reach(ref)
		}
	}
}

func (n *heldNode) add(to *wire.Holding) {
	to.Paths++
	to.NarBytes += n.narBytes
	to.FileBytes += n.fileBytes
}
