package gc

import (
	"iter"
	"math/bits"
)

// bitset is a fixed number of bits, all false at first.
type bitset []uint64

func mkBits(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) has(i int) bool { return b[i>>6]&(1<<(i&63)) != 0 }

// set reports whether the bit was false.
func (b bitset) set(i int) bool {
	word, bit := &b[i>>6], uint64(1)<<(i&63)
	fresh := *word&bit == 0
	*word |= bit
	return fresh
}

// setRange sets count bits from first on and calls fresh, which may be nil, with each
// stretch of them that was false.
func (b bitset) setRange(first, count int, fresh func(first, count int)) {
	for i, end := first, first+count; i < end; {
		to := min(end, i&^63+64)
		mask := ^uint64(0) << (i & 63)
		if to&63 != 0 {
			mask &= 1<<(to&63) - 1
		}
		word := &b[i>>6]
		if news := mask &^ *word; news != 0 && fresh != nil {
			for news != 0 {
				from := bits.TrailingZeros64(news)
				n := bits.TrailingZeros64(^(news >> from))
				fresh(i&^63+from, n)
				if n == 64 {
					break
				}
				news &^= (1<<n - 1) << from
			}
		}
		*word |= mask
		i = to
	}
}

// clears yields the stretches of false bits among the first n.
func (b bitset) clears(n int) iter.Seq2[int, int] {
	return func(yield func(first, count int) bool) {
		first := -1
		for i := 0; i < n; {
			switch w := b[i>>6] >> (i & 63); {
			case w&1 != 0:
				if first >= 0 && !yield(first, i-first) {
					return
				}
				first = -1
				i += bits.TrailingZeros64(^w)
			default:
				if first < 0 {
					first = i
				}
				i += min(bits.TrailingZeros64(w), 64-i&63) // 64 if no bit is left in the word
			}
		}
		if first >= 0 {
			yield(first, n-first)
		}
	}
}

// count returns how many bits are true.
func (b bitset) count() (n int) {
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}
