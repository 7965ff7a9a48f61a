package chunk_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/celler/celler/blob/chunk"
)

// TestCutDocument implements what docs/formats/cut.md says, with the table that is printed
// there, and compares it with its test and with what we do.
func TestCutDocument(t *testing.T) {
	raw, err := os.ReadFile("../../docs/formats/cut.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	// block returns the numbers in the first listing of a section.
	block := func(section string, base int) (numbers []uint64) {
		_, text, _ := strings.Cut(doc, "\n## "+section+"\n")
		_, text, _ = strings.Cut(text, "```text\n")
		text, _, _ = strings.Cut(text, "```")
		for _, field := range strings.Fields(text) {
			v, err := strconv.ParseUint(field, base, 64)
			if err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, v)
		}
		return numbers
	}
	gear, want := block("gear", 16), block("A test", 10)
	if len(gear) != 256 || len(want) == 0 {
		t.Fatalf("%d numbers in the table and %d lengths", len(gear), len(want))
	}

	data := make([]byte, 500_000)
	x := uint64(0)
	for i := range 400_000 {
		x = x*6364136223846793005 + 1442695040888963407
		data[i] = byte(x >> 56)
	}
	sum := sha256.Sum256(data)
	for _, text := range []string{hex.EncodeToString(data[:8]), hex.EncodeToString(sum[:])} {
		if !strings.Contains(doc, "`"+text+"`") {
			t.Errorf("the document does not say %s of the bytes of the test", text)
		}
	}

	p := mustProfile(t, chunk.DefaultProfile)
	var documented, ours []uint64
	for rest := data; len(rest) > 0; {
		n := asDocumented(rest, gear, 4096, 16384, 65536, 0xffff, 0xfff)
		documented, rest = append(documented, uint64(n)), rest[n:]
	}
	for rest := data; len(rest) > 0; {
		n := p.Cut(rest)
		ours, rest = append(ours, uint64(n)), rest[n:]
	}
	if !slices.Equal(documented, want) || !slices.Equal(ours, want) {
		t.Errorf("by the document %v\nby this package %v\nwant %v", documented, ours, want)
	}
}

// asDocumented is the algorithm of the document.
func asDocumented(data []byte, gear []uint64, least, avg, most int, long, short uint64) int {
	n := min(len(data), most)
	if n <= least {
		return n
	}
	h := uint64(0)
	for i := least; i < n; i++ {
		h = 2*h + gear[data[i]]
		mask := short
		if i < avg {
			mask = long
		}
		if h&mask == 0 {
			return i + 1
		}
	}
	return n
}
