package nixstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/nix"
)

// Closure returns the roots and everything they refer to, each path once,
// references before what refers to them. The order is a function of the closure
// alone: paths that do not depend on each other come in the order in which a
// depth-first walk over sorted references meets them.
func (s *Store) Closure(ctx context.Context, roots []nix.StorePath) ([]PathInfo, error) {
	infos := make(map[nix.StorePath]PathInfo, len(roots))
	// Level by level, so that every level is one pipelined query.
	for next := unique(roots); len(next) > 0; {
		found, err := s.PathInfos(ctx, next)
		if err != nil {
			return nil, fmt.Errorf("closure: %w", err)
		}
		for _, info := range found {
			infos[info.StorePath] = info
		}
		next = next[:0]
		for _, info := range found {
			for _, ref := range info.References {
				if _, known := infos[ref]; !known {
					infos[ref] = PathInfo{} // asked about in the next round
					next = append(next, ref)
				}
			}
		}
	}
	return topological(infos, unique(roots))
}

// unique returns a sorted copy without duplicates.
func unique(paths []nix.StorePath) []nix.StorePath {
	paths = slices.Clone(paths)
	sortPaths(paths)
	return slices.Compact(paths)
}

func sortPaths(paths []nix.StorePath) { slices.SortFunc(paths, nix.StorePath.Compare) }

// topological orders infos, references first. It does not recurse: closures are
// thousands deep when they are meant to hurt.
func topological(infos map[nix.StorePath]PathInfo, roots []nix.StorePath) ([]PathInfo, error) {
	type visit struct {
		path nix.StorePath
		refs []nix.StorePath // still to be visited
	}
	const (
		open = iota + 1
		done
	)
	state := make(map[nix.StorePath]int, len(infos))
	order := make([]PathInfo, 0, len(infos))
	var stack []visit
	for _, root := range roots {
		if state[root] == done {
			continue
		}
		state[root] = open
		stack = append(stack, visit{root, infos[root].References})
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if len(top.refs) == 0 {
				state[top.path] = done
				order = append(order, infos[top.path])
				stack = stack[:len(stack)-1]
				continue
			}
			ref := top.refs[0]
			top.refs = top.refs[1:]
			switch {
			case ref == top.path || state[ref] == done:
			case state[ref] == open:
				return nil, fmt.Errorf("closure: %v and %v refer to each other", ref, top.path)
			default:
				state[ref] = open
				stack = append(stack, visit{ref, infos[ref].References})
			}
		}
	}
	return order, nil
}
