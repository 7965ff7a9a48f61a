package httpapi

import "sync"

// listings remembers the listings of NARs that were taken in as one segment, from there to
// their commit. What is forgotten is made again when somebody asks for it.
type listings struct {
	mu    sync.Mutex          // guards the others
	packs map[[32]byte][]byte // by NAR hash
	order [][32]byte          // oldest first
	bytes int
}

// listingBytes bounds all of them together, keys included.
const listingBytes = 4 << 20

func (l *listings) put(narHash [32]byte, packed []byte) {
	if packed == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.packs[narHash]; there {
		return
	}
	if l.packs == nil {
		l.packs = make(map[[32]byte][]byte)
	}
	l.packs[narHash] = packed
	l.order = append(l.order, narHash)
	l.bytes += len(packed) + len(narHash)
	for l.bytes > listingBytes {
		oldest := l.order[0]
		l.order = l.order[1:]
		l.bytes -= len(l.packs[oldest]) + len(oldest)
		delete(l.packs, oldest)
	}
}

func (l *listings) get(narHash [32]byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.packs[narHash]
}
