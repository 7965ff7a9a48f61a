package client

import (
	"container/heap"

	"github.com/celler/celler/nix"
)

// latencyBytes is what a round trip costs, expressed in bytes, when the schedule
// weighs a long chain of small paths against one large one.
const latencyBytes = 1 << 20

// item is one path to be uploaded.
type item struct {
	path path

	waits     int     // references among the items that are not done yet
	referrers []*item // items that refer to this one
	rank      int64   // cost of the longest chain of uploads that starts here
	state     itemState
}

type itemState uint8

const (
	itemWaiting itemState = iota
	itemReady
	itemRunning
	itemDone
	itemFailed
	itemSkipped
)

// schedule hands out items so that references come first, and among those that may
// start, the ones that hold up most. It belongs to one goroutine.
type schedule struct {
	items []*item
	ready readyHeap
	left  int // items not yet done, failed or skipped
}

// newSchedule links paths, of which each is given once, with references before
// referrers. References that are not among them count as done.
func newSchedule(paths []path) *schedule {
	s := &schedule{left: len(paths)}
	byPath := make(map[nix.StorePath]*item, len(paths))
	for _, p := range paths {
		it := &item{path: p}
		byPath[p.storePath] = it
		s.items = append(s.items, it)
	}
	for _, it := range s.items {
		for _, ref := range it.path.references {
			if on := byPath[ref]; on != nil && on != it {
				on.referrers = append(on.referrers, it)
				it.waits++
			}
		}
	}
	for i := len(s.items) - 1; i >= 0; i-- {
		it := s.items[i]
		for _, referrer := range it.referrers {
			it.rank = max(it.rank, referrer.rank)
		}
		it.rank += it.path.narSize + latencyBytes
	}
	for _, it := range s.items {
		if it.waits == 0 {
			s.push(it)
		}
	}
	return s
}

func (s *schedule) push(it *item) {
	it.state = itemReady
	heap.Push(&s.ready, it)
}

// peek returns the item that should start next, or nil if none may.
func (s *schedule) peek() *item {
	if len(s.ready) == 0 {
		return nil
	}
	return s.ready[0]
}

// start takes the item that peek showed.
func (s *schedule) start() *item {
	it := heap.Pop(&s.ready).(*item) //nolint:errcheck,forcetypeassert // the heap holds nothing else
	it.state = itemRunning
	return it
}

// done lets the referrers of a running item start.
func (s *schedule) done(it *item) {
	it.state = itemDone
	s.left--
	for _, referrer := range it.referrers {
		if referrer.waits--; referrer.waits == 0 && referrer.state == itemWaiting {
			s.push(referrer)
		}
	}
}

// failed gives up a running item and returns all that refer to it, however far up;
// they will never start.
func (s *schedule) failed(it *item) []*item {
	it.state = itemFailed
	s.left--
	var skipped []*item
	for queue := []*item{it}; len(queue) > 0; queue = queue[1:] {
		for _, referrer := range queue[0].referrers {
			if referrer.state == itemWaiting {
				referrer.state = itemSkipped
				s.left--
				skipped = append(skipped, referrer)
				queue = append(queue, referrer)
			}
		}
	}
	return skipped
}

// abandon gives up everything that has not started and returns it.
func (s *schedule) abandon() []*item {
	var skipped []*item
	for _, it := range s.items {
		if it.state == itemWaiting || it.state == itemReady {
			it.state = itemSkipped
			s.left--
			skipped = append(skipped, it)
		}
	}
	s.ready = nil
	return skipped
}

// readyHeap implements heap.Interface, highest rank first.
type readyHeap []*item

func (h readyHeap) Len() int           { return len(h) }
func (h readyHeap) Less(i, j int) bool { return h[i].rank > h[j].rank }
func (h readyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *readyHeap) Push(x any) { *h = append(*h, x.(*item)) } //nolint:errcheck,forcetypeassert // see start

// Pop implements heap.Interface.
func (h *readyHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return x
}
