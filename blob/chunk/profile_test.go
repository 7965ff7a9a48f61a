package chunk_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"testing"

	"pgregory.net/rapid"

	"github.com/celler/celler/blob/chunk"
)

// TestFrozenCuts fails when a profile changes. It must never be mended by new
// numbers: buckets exist that were written with the old ones.
func TestFrozenCuts(t *testing.T) {
	for name, want := range map[string]string{
		"fast2016-1k":   frozen1k,
		"fast2016-16k":  frozen16k,
		"fast2016-64k":  frozen64k,
		"fast2016-256k": frozen256k,
	} {
		h := sha256.New()
		for _, n := range cuts(mustProfile(t, name), mixed(9, 8<<20)) {
			h.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
		}
		if got := hex.EncodeToString(h.Sum(nil)[:8]); got != want {
			t.Errorf("%s cuts 8 MiB into a list with hash %s, want %s", name, got, want)
		}
	}
}

func TestParseProfile(t *testing.T) {
	ok := func(name string, lo, avg, hi int) {
		t.Helper()
		p := mustProfile(t, name)
		if p.Min != lo || p.Avg != avg || p.Max != hi || p.String() != name {
			t.Errorf("%s: %+v", name, p)
		}
	}
	bad := func(name, why string) {
		t.Helper()
		if p, err := chunk.ParseProfile(name); err == nil {
			t.Errorf("%q is accepted as %+v, although it is %s", name, p, why)
		}
	}
	ok("fast2016-16k", 4<<10, 16<<10, 64<<10)
	ok(chunk.DefaultProfile, 4<<10, 16<<10, 64<<10)
	ok("fast2016-256k", 64<<10, 256<<10, chunk.MaxSize)
	bad("", "empty")
	bad("fast2016-16", "without unit")
	bad("fast2016-016k", "another spelling")
	bad("fast2016-+16k", "another spelling")
	bad("fast2016-12k", "no power of two")
	bad("fast2016-0k", "zero")
	bad("fast2016-512k", "too large")
	bad("fast2020-16k", "unknown")
}

func TestCutJoins(t *testing.T) {
	p := mustProfile(t, "fast2016-1k")
	rapid.Check(t, func(t *rapid.T) {
		data := mixed(rapid.Byte().Draw(t, "seed"), rapid.IntRange(0, 100_000).Draw(t, "len"))
		sum := 0
		all := cuts(p, data)
		for i, n := range all {
			if n < 1 || n > p.Max || n < p.Min && i < len(all)-1 {
				t.Fatalf("chunk %d of %d has %d bytes", i, len(all), n)
			}
			sum += n
		}
		if sum != len(data) {
			t.Fatalf("chunks have %d bytes together, want %d", sum, len(data))
		}
	})
}

// TestCutStable checks what chunks are for: after an edit, the cuts far behind
// it are where they were.
func TestCutStable(t *testing.T) {
	p := mustProfile(t, "fast2016-1k")
	rapid.Check(t, func(t *rapid.T) {
		data := random(rapid.Byte().Draw(t, "seed"), 200_000)
		at := rapid.IntRange(0, 20_000).Draw(t, "at")
		edit := random(77, rapid.IntRange(0, 3000).Draw(t, "insert"))
		edited := append(append(append([]byte{}, data[:at]...), edit...), data[at:]...)
		ends := func(b []byte) map[int]bool { // distance of every cut from the end
			m, off := map[int]bool{}, 0
			for _, n := range cuts(p, b) {
				off += n
				m[len(b)-off] = true
			}
			return m
		}
		before, after := ends(data), ends(edited)
		lost := 0
		for d := range before {
			if d < len(data)-at-60_000 && !after[d] {
				lost++
			}
		}
		if lost > 0 {
			t.Fatalf("%d cuts more than 60 kB behind the edit moved", lost)
		}
	})
}

func TestCutAllocates(t *testing.T) {
	p, data := mustProfile(t, "fast2016-16k"), random(1, 1<<20)
	if n := testing.AllocsPerRun(10, func() { cuts0(p, data) }); n != 0 {
		t.Errorf("cutting a MiB allocates %v times, want never", n)
	}
}

func cuts0(p chunk.Profile, b []byte) (n int) {
	for len(b) > 0 {
		b = b[p.Cut(b):]
		n++
	}
	return n
}

func BenchmarkCut(b *testing.B) {
	p, data := mustProfile(b, "fast2016-16k"), random(1, 8<<20)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		cuts0(p, data)
	}
}
