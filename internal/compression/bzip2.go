package compression

import (
	"index/suffixarray"
	"io"
)

// bzip2Writer makes blocks of up to 100 kB. They go through all that the format demands
// (run lengths, the Burrows-Wheeler transform, move to front, run lengths of zeros), but
// the codes are all as long as each other, give or take a bit.
type bzip2Writer struct {
	w     io.Writer
	bits  uint64
	n     uint   // how many bits
	out   []byte // whole bytes
	block []byte // run-length coded
	sum   uint32 // of the plain bytes of the block
	all   uint32 // of all blocks
	table *[256]uint32

	last byte // the run that is being counted
	run  int
	err  error
}

const (
	bzip2Block     = 100_000 - 20
	bzip2MaxRun    = 4 + 251
	bzip2Select    = 50 // symbols that share a choice of code
	bzip2BlockMark = 0x314159265359
	bzip2EndMark   = 0x177245385090
)

func newBzip2Writer(w io.Writer) *bzip2Writer {
	b := &bzip2Writer{w: w, out: []byte("BZh1"), table: new([256]uint32), sum: ^uint32(0)}
	for i := range b.table {
		c := uint32(i) << 24
		for range 8 {
			if c&(1<<31) != 0 {
				c = c<<1 ^ 0x04c11db7
			} else {
				c <<= 1
			}
		}
		b.table[i] = c
	}
	return b
}

func (b *bzip2Writer) Write(p []byte) (int, error) {
	for i, c := range p {
		if b.run > 0 && (c != b.last || b.run == bzip2MaxRun) {
			b.endRun()
		}
		if b.run == 0 && len(b.block) > bzip2Block-5 {
			b.flush()
		}
		if b.err != nil {
			return i, b.err
		}
		b.last = c
		b.run++
		b.sum = b.sum<<8 ^ b.table[byte(b.sum>>24)^c]
	}
	return len(p), b.err
}

// endRun adds the run to the block: from four on, with the number of further ones.
func (b *bzip2Writer) endRun() {
	for range min(b.run, 4) {
		b.block = append(b.block, b.last)
	}
	if b.run >= 4 {
		b.block = append(b.block, byte(b.run-4))
	}
	b.run = 0
}

// put writes the n low bits of v.
func (b *bzip2Writer) put(v uint64, n uint) {
	for n > 0 {
		k := min(n, 32)
		n -= k
		b.bits = b.bits<<k | v>>n&(1<<k-1)
		b.n += k
		for b.n >= 8 {
			b.n -= 8
			b.out = append(b.out, byte(b.bits>>b.n))
		}
	}
}

func (b *bzip2Writer) send() {
	if b.err == nil {
		_, b.err = b.w.Write(b.out)
	}
	b.out = b.out[:0]
}

// flush writes the block.
func (b *bzip2Writer) flush() {
	if len(b.block) == 0 {
		return
	}
	sum := ^b.sum
	b.all = (b.all<<1 | b.all>>31) ^ sum
	last, origin := transform(b.block)
	b.put(bzip2BlockMark, 48)
	b.put(uint64(sum), 32)
	b.put(0, 1) // not randomised
	b.put(uint64(origin), 24)
	symbols, used := b.symbols(last)
	b.code(symbols, used+2)
	b.send()
	b.block, b.sum = b.block[:0], ^uint32(0)
}

// transform sorts the rotations of p and returns their last bytes, and which of them is p.
func transform(p []byte) (last []byte, origin int) {
	n := len(p)
	twice := append(append(make([]byte, 0, 2*n), p...), p...)
	sa := suffixarray.New(twice)
	last = make([]byte, 0, n)
	for c := range 256 {
		// What Lookup finds is in the order of the suffix array, and a suffix that begins
		// in the first half begins with a whole rotation.
		for _, i := range sa.Lookup([]byte{byte(c)}, -1) {
			if i >= n {
				continue
			}
			if i == 0 {
				origin = len(last)
			}
			last = append(last, twice[i+n-1])
		}
	}
	return last, origin
}

// symbols writes which bytes are in use, and returns the block moved to front, with runs of
// zeros as numbers and an end.
func (b *bzip2Writer) symbols(last []byte) (symbols []uint16, used int) {
	var in [256]bool
	for _, c := range last {
		in[c] = true
	}
	var groups uint64
	for c, is := range in {
		if is {
			groups |= 1 << (15 - c/16)
		}
	}
	b.put(groups, 16)
	var front []byte
	for g := range 16 {
		if groups&(1<<(15-g)) == 0 {
			continue
		}
		var row uint64
		for i := range 16 {
			if in[g*16+i] {
				row |= 1 << (15 - i)
				front = append(front, byte(g*16+i))
			}
		}
		b.put(row, 16)
	}
	zeros := 0
	endZeros := func() {
		for ; zeros > 0; zeros = (zeros - 1) / 2 { // in the digits 1 and 2, lowest first
			symbols = append(symbols, uint16((zeros-1)&1))
		}
	}
	used = len(front)
	for _, c := range last {
		if front[0] == c {
			zeros++
			continue
		}
		endZeros()
		at := 1
		for front[at] != c {
			at++
		}
		copy(front[1:at+1], front[:at])
		front[0] = c
		symbols = append(symbols, uint16(at+1))
	}
	endZeros()
	return append(symbols, uint16(used+1)), used
}

// code writes symbols, of which there are n different ones, with one complete code.
func (b *bzip2Writer) code(symbols []uint16, n int) {
	long := uint(1)
	for 1<<long < n {
		long++
	}
	short := 1<<long - n // so many codes are one bit shorter
	if long == 1 {
		short = 0
	}
	length := func(s int) uint {
		if s < short {
			return long - 1
		}
		return long
	}
	selectors := (len(symbols) + bzip2Select - 1) / bzip2Select
	b.put(2, 3) // the fewest there may be
	b.put(uint64(selectors), 15)
	for range selectors {
		b.put(0, 1)
	}
	for range 2 {
		at := length(0)
		b.put(uint64(at), 5)
		for s := range n {
			for ; at < length(s); at++ {
				b.put(0b10, 2)
			}
			b.put(0, 1)
		}
	}
	for _, s := range symbols {
		if int(s) < short {
			b.put(uint64(s), long-1)
		} else {
			b.put(uint64(int(s)+short), long)
		}
	}
}

// Close implements io.Closer.
func (b *bzip2Writer) Close() error {
	if b.run > 0 {
		b.endRun()
	}
	b.flush()
	b.put(bzip2EndMark, 48)
	b.put(uint64(b.all), 32)
	if b.n > 0 {
		b.put(0, 8-b.n)
	}
	b.send()
	return b.err
}
