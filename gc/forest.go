package gc

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/celler/celler/nix"
)

// forest holds the paths of some caches, when each was last used, and what refers to
// what. A path of ten references takes 74 bytes, so that a cache of ten million fits in
// memory; nothing else of a path is kept.
//
// It is filled in two passes over the same rows: add for each path, then refer for
// each, because a reference can only be resolved when all paths are there. References
// never leave their tree: a cache must be complete by itself.
type forest struct {
	trees  []tree
	hashes []nix.HashPart // ascending within a tree
	days   []uint32       // last use
	made   []uint32       // when they were pushed, in seconds since 1970
	from   []uint32       // where in refs those of path i begin; they end where those of i+1 do
	refs   []uint32
	pins   bitset // roots of pins
}

// tree is one cache: paths first to end-1.
type tree struct{ first, end int }

// plant begins a tree, which gets what is added from now on, and returns its number.
func (f *forest) plant() int {
	f.trees = append(f.trees, tree{first: len(f.hashes), end: len(f.hashes)})
	return len(f.trees) - 1
}

// add appends a path to the newest tree. Paths of a tree come in ascending order.
func (f *forest) add(hashPart nix.HashPart, day, made uint32) {
	f.hashes = append(f.hashes, hashPart)
	f.days = append(f.days, day)
	f.made = append(f.made, made)
	f.trees[len(f.trees)-1].end = len(f.hashes)
}

// refer notes what the next path, in the order of add, refers to. References to
// itself, and to what the cache does not have, keep nothing alive.
func (f *forest) refer(t int, refs []nix.HashPart) {
	self := len(f.from)
	f.from = append(f.from, uint32(len(f.refs)))
	for _, r := range refs {
		if i, ok := f.find(t, r); ok && i != self {
			f.refs = append(f.refs, uint32(i))
		}
	}
}

// pin makes a path a root, if it is there.
func (f *forest) pin(t int, hashPart nix.HashPart) bool {
	i, ok := f.find(t, hashPart)
	if ok {
		f.pins = append(f.pins, mkBits(max(0, len(f.hashes)-64*len(f.pins)))...)
		f.pins.set(i)
	}
	return ok
}

func (f *forest) pinned(i int) bool { return i>>6 < len(f.pins) && f.pins.has(i) }

// find returns the number of a path.
func (f *forest) find(t int, hashPart nix.HashPart) (int, bool) {
	tr := f.trees[t]
	i, ok := slices.BinarySearchFunc(f.hashes[tr.first:tr.end], hashPart, func(a, b nix.HashPart) int { return bytes.Compare(a[:], b[:]) })
	return tr.first + i, ok
}

// treeOf returns the tree of a path.
func (f *forest) treeOf(i int) int {
	t, _ := slices.BinarySearchFunc(f.trees, i, func(tr tree, i int) int {
		if i < tr.first {
			return 1
		}
		if i >= tr.end {
			return -1
		}
		return 0
	})
	return t
}

func (f *forest) refsOf(i int) []uint32 {
	end := uint32(len(f.refs))
	if i+1 < len(f.from) {
		end = f.from[i+1]
	}
	return f.refs[f.from[i]:end]
}

// reach marks in live whatever the paths in roots lead to, themselves included.
func (f *forest) reach(live bitset, roots ...int) {
	var stack []uint32
	for _, r := range roots {
		if live.set(r) {
			stack = append(stack, uint32(r))
		}
		for len(stack) > 0 {
			i := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			for _, r := range f.refsOf(int(i)) {
				if live.set(int(r)) {
					stack = append(stack, r)
				}
			}
		}
	}
}

// live returns what lives: what is pinned, what root says lives for itself, and all
// that these refer to.
func (f *forest) live(root func(i int) bool) bitset {
	live := mkBits(len(f.hashes))
	for i := range f.hashes {
		if f.pinned(i) || root(i) {
			f.reach(live, i)
		}
	}
	return live
}

// byUse returns the paths that are in live so that whoever keeps a prefix of them keeps
// what was used last: closures of pins first, then by the day of last use and among those
// of one day by when they were pushed, the newest first, and a path after all that it
// refers to. pinned is the length of the first part.
func (f *forest) byUse(live bitset) (order []uint32, pinned int) {
	roots := make([]uint32, 0, live.count())
	for i := range f.hashes {
		if live.has(i) {
			roots = append(roots, uint32(i))
		}
	}
	slices.SortFunc(roots, func(a, b uint32) int {
		if pa, pb := f.pinned(int(a)), f.pinned(int(b)); pa != pb {
			return cmp.Compare(b2i(pb), b2i(pa))
		}
		return cmp.Or(cmp.Compare(f.days[b], f.days[a]), cmp.Compare(f.made[b], f.made[a]), cmp.Compare(a, b))
	})
	order = make([]uint32, 0, len(roots))
	seen := mkBits(len(f.hashes))
	for _, r := range roots {
		if !f.pinned(int(r)) && pinned == 0 {
			pinned = len(order)
			if pinned == 0 {
				pinned = -1 // none
			}
		}
		order = f.postOrder(order, seen, r)
	}
	switch {
	case pinned < 0:
		pinned = 0
	case pinned == 0: // no root that is not pinned
		pinned = len(order)
	}
	return order, pinned
}

// postOrder appends r and what it leads to, references first.
func (f *forest) postOrder(order []uint32, seen bitset, r uint32) []uint32 {
	type frame struct{ path, next uint32 }
	if !seen.set(int(r)) {
		return order
	}
	stack := []frame{{path: r}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if refs := f.refsOf(int(top.path)); int(top.next) < len(refs) {
			next := refs[top.next]
			top.next++
			if seen.set(int(next)) {
				stack = append(stack, frame{path: next})
			}
			continue
		}
		order = append(order, top.path)
		stack = stack[:len(stack)-1]
	}
	return order
}

// why returns how a root leads to path: the root first, path last. It prefers pinned
// roots, then the shortest way. nil if nothing keeps the path.
func (f *forest) why(path int, root func(i int) bool) []int {
	for _, want := range []func(int) bool{f.pinned, root} {
		if way := f.way(path, want); way != nil {
			return way
		}
	}
	return nil
}

// way looks upwards from path, breadth first. There is no list of referrers, so each
// level is one pass over the tree; explaining is for people.
func (f *forest) way(path int, root func(i int) bool) []int {
	if root(path) {
		return []int{path}
	}
	tr := f.trees[f.treeOf(path)]
	to := map[int]int{path: -1} // towards path
	level := map[int]bool{path: true}
	for len(level) > 0 {
		next := map[int]bool{}
		for i := tr.first; i < tr.end; i++ {
			if _, known := to[i]; known {
				continue
			}
			for _, r := range f.refsOf(i) {
				if level[int(r)] {
					to[i], next[i] = int(r), true
					break
				}
			}
		}
		for i := tr.first; i < tr.end; i++ {
			if next[i] && root(i) {
				var way []int
				for at := i; at >= 0; at = to[at] {
					way = append(way, at)
				}
				return way
			}
		}
		level = next
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
