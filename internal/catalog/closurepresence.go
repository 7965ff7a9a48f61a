package catalog

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// closureWalk is how many paths ClosurePresence looks at beyond those that it was asked
// about. A path takes some microseconds and some 50 bytes meanwhile.
const closureWalk = 100_000

// ClosurePresence is what one cache has of some paths, and of all that these refer to.
type ClosurePresence struct {
	Missing []bool // of those that were asked about, in their order
	Walked  bool   // the closures were walked; if not they are too large, and the rest is empty
	Paths   int    // that are there: those asked about and what they lead to, each once
	// Absent are those that what is there refers to, and that are not there, sorted. Those
	// that were asked about are in Missing alone.
	Absent []nix.HashPart
}

// ClosurePresence returns which of hashParts a cache lacks and whether all is there that the
// others lead to, or ErrNoCache. It follows the references of what is in the cache, and only
// there: what is absent leads nowhere. As for MissingPaths, hits are not taken from the index
// as it is.
func (c *Catalog) ClosurePresence(ctx context.Context, cache CacheName, hashParts []nix.HashPart) (p ClosurePresence, err error) {
	const doing = "look at closures"
	t, err := c.currentTenant(ctx, doing, cache)
	if err != nil {
		return p, err
	}
	v, err := c.db.View() // closures as of one moment
	if err != nil {
		return p, fmt.Errorf("%s: %w", doing, err)
	}
	defer func() {
		if closeErr := v.Close(); closeErr != nil && err == nil {
			p, err = ClosurePresence{}, fmt.Errorf("%s: %w", doing, closeErr)
		}
	}()
	w := closureWalker{view: v, cache: t.cache.ID, seen: make(map[nix.HashPart]bool, len(hashParts)), limit: closureWalk}
	if p, err = w.walk(ctx, hashParts); err != nil {
		return ClosurePresence{}, fmt.Errorf("%s: %w", doing, err)
	}
	return p, nil
}

// closureWalker walks closures in one cache.
type closureWalker struct {
	view  getter
	cache CacheID
	limit int
	seen  map[nix.HashPart]bool // whether it is there
	todo  []nix.HashPart        // there, and not followed yet
}

func (w *closureWalker) walk(ctx context.Context, asked []nix.HashPart) (ClosurePresence, error) {
	p := ClosurePresence{Missing: make([]bool, len(asked))}
	var key []byte
	for i, hashPart := range asked {
		there, known := w.seen[hashPart]
		if !known {
			var err error
			key = keyspace.AppendPathKey(key[:0], w.cache, hashPart)
			if _, there, err = w.view.Get(key); err != nil {
				return p, err
			}
			w.seen[hashPart] = there
			if there {
				w.todo = append(w.todo, hashPart)
				p.Paths++
			}
		}
		p.Missing[i] = !there
	}
	w.limit += len(w.seen)
	for len(w.todo) > 0 {
		hashPart := w.todo[len(w.todo)-1]
		w.todo = w.todo[:len(w.todo)-1]
		row, _, err := read(w.view, keyspace.AppendPathKey(nil, w.cache, hashPart), keyspace.DecodePath)
		if err != nil {
			return p, err
		}
		for _, ref := range row.References {
			to := ref.HashPart()
			if _, known := w.seen[to]; known { // a path may refer to itself
				continue
			}
			if len(w.seen) >= w.limit {
				p.Paths, p.Absent = 0, nil
				return p, nil
			}
			key = keyspace.AppendPathKey(key[:0], w.cache, to)
			_, there, err := w.view.Get(key)
			if err != nil {
				return p, err
			}
			w.seen[to] = there
			if there {
				w.todo = append(w.todo, to)
				p.Paths++
			} else {
				p.Absent = append(p.Absent, to)
			}
		}
		if err := ctx.Err(); err != nil {
			return p, err
		}
	}
	slices.SortFunc(p.Absent, func(a, b nix.HashPart) int { return bytes.Compare(a[:], b[:]) })
	p.Walked = true
	return p, nil
}
