//go:build amd64 && !purego

package twosha

// paired is whether the processor has what blocks needs. It does not change.
var paired = detect() //nolint:gochecknoglobals // a constant that takes an instruction to know

// Paired reports whether Blocks computes both at a time.
func Paired() bool { return paired }

func detect() bool {
	const (
		ssse3 = 1 << 9  // of leaf 1, register C
		sse41 = 1 << 19 // likewise
		sha   = 1 << 29 // of leaf 7, register B
	)
	most, _, _, _ := cpuid(0, 0)
	if most < 7 {
		return false
	}
	_, _, c, _ := cpuid(1, 0)
	_, b, _, _ := cpuid(7, 0)
	return c&ssse3 != 0 && c&sse41 != 0 && b&sha != 0
}

//go:noescape
func blocks(a, b *[8]uint32, p, q *byte, n int)

func cpuid(leaf, sub uint32) (a, b, c, d uint32)
