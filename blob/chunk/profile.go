package chunk

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Profile is a frozen set of cut parameters. The zero value cuts nothing; get one
// from [ParseProfile].
type Profile struct {
	Name          string
	Min, Avg, Max int // bytes

	maskS, maskL uint64
}

// DefaultProfile is the profile a bucket gets if nobody asks for another.
const DefaultProfile = "fast2016-16k"

const (
	fast2016 = "fast2016-"

	// minAvgKiB and maxAvgKiB bound the average chunk, and with it the largest one
	// (4 x average) that readers must be able to hold in memory several times.
	minAvgKiB = 1
	maxAvgKiB = 256

	// MaxSize is the largest chunk of any profile, in bytes.
	MaxSize = 4 * maxAvgKiB << 10
)

// ParseProfile returns the profile called name: "fast2016-<n>k", where n, the
// average chunk in KiB, is a power of two from 1 to 256. The shortest chunk (but
// for the last of a stream) is a quarter of that, the longest four times.
func ParseProfile(name string) (Profile, error) {
	digits, ok := strings.CutPrefix(name, fast2016)
	digits, ok2 := strings.CutSuffix(digits, "k")
	n, err := strconv.Atoi(digits)
	if !ok || !ok2 || err != nil || strconv.Itoa(n) != digits || n < minAvgKiB || n > maxAvgKiB || n&(n-1) != 0 {
		return Profile{}, fmt.Errorf("parse cut profile %q: want %s<n>k with a power of two from %d to %d for <n>", name, fast2016, minAvgKiB, maxAvgKiB)
	}
	avg := n << 10
	log := bits.Len(uint(avg)) - 1
	return Profile{
		Name: name, Min: avg / 4, Avg: avg, Max: avg * 4,
		maskS: 1<<(log+normalization) - 1,
		maskL: 1<<(log-normalization) - 1,
	}, nil
}

// String returns the name.
func (p Profile) String() string { return p.Name }

// Cut returns the length of the first chunk of b. b must hold at least Max bytes
// of the stream, or all that is left of it.
func (p Profile) Cut(b []byte) int {
	if len(b) <= p.Min {
		return len(b)
	}
	n := min(len(b), p.Max)
	mid := min(n, p.Avg)
	i, h := scan(b[p.Min:mid], 0, p.maskS)
	if i >= 0 {
		return p.Min + i + 1
	}
	if i, _ = scan(b[mid:n], h, p.maskL); i >= 0 {
		return mid + i + 1
	}
	return n
}

// normalization is how many bits the mask is longer before the average size is
// reached, and shorter after it.
const normalization = 2

// scan returns the index of the first byte of d after which the gear hash, h
// before d, has no bit of mask set, or -1, and the hash at that place. It takes
// two bytes a step: the hash after the first of them is computed shifted left by
// one, so that the longest chain of dependent operations is one shift and one
// addition per byte pair.
func scan(d []byte, h, mask uint64) (int, uint64) {
	i := 0
	for ; i+2 <= len(d); i += 2 {
		b := d[i : i+2 : i+2]
		if h = h<<2 + gear[b[0]]<<1; h&(mask<<1) == 0 {
			return i, h >> 1
		}
		if h += gear[b[1]]; h&mask == 0 {
			return i + 1, h
		}
	}
	if i < len(d) {
		if h = h<<1 + gear[d[i]]; h&mask == 0 {
			return i, h
		}
	}
	return -1, h
}
