//go:build !amd64 || purego

package twosha

// Paired reports whether Blocks computes both at a time.
func Paired() bool { return false }

func blocks(_, _ *[8]uint32, _, _ *byte, _ int) { panic("twosha: not made for this processor") }
