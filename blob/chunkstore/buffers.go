package chunkstore

import (
	"bytes"
	"sync"
)

// bufferStep is by how much buffers of different classes differ.
const bufferStep = 64 << 10

// bufferPool keeps buffers for frames and stretches. A server that copies a
// gigabyte a second would else allocate one, and the collector would let as much
// garbage pile up as comes in while it runs.
type bufferPool struct {
	classes [1<<20/bufferStep + 2]sync.Pool // of *[]byte; the i-th have room for i steps
}

// get returns an empty buffer with room for n bytes.
func (p *bufferPool) get(n int) []byte {
	class := max((n+bufferStep-1)/bufferStep, 1)
	if class >= len(p.classes) {
		return make([]byte, 0, n)
	}
	if b, ok := p.classes[class].Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, class*bufferStep)
}

// copy returns a copy of data that may be kept: what is much smaller than a buffer gets
// memory of its own.
func (p *bufferPool) copy(data []byte) []byte {
	if len(data) < bufferStep/2 {
		return bytes.Clone(data)
	}
	return append(p.get(len(data)), data...)
}

// append is the append of the language, but takes the memory from the pool when there
// is not enough room: most bytes of it, if that will do.
func (p *bufferPool) append(b, data []byte, most int) []byte {
	if need := len(b) + len(data); need > cap(b) {
		larger := append(p.get(max(most, need)), b...)
		p.put(b)
		b = larger
	}
	return append(b, data...)
}

// put takes a buffer that nobody uses any more.
func (p *bufferPool) put(b []byte) {
	if class := cap(b) / bufferStep; class > 0 && class < len(p.classes) {
		b = b[:0]
		p.classes[class].Put(&b)
	}
}
