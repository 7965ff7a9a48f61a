package wal_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"hash/crc32"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/wal"
)

var update = flag.Bool("update", false, "write golden files anew")

func goldenSegment() *wal.Segment {
	s := &wal.Segment{
		Seq: 0x1234, Batch: 7, Time: time.UnixMilli(1_795_413_600_123).UTC(),
		Entries: []wal.Entry{
			{Kind: wal.PushBoundary, Key: []byte("publish hello"), Value: []byte("ci 1234")},
			{Kind: wal.Set, Key: []byte("p/ci/00bgd045"), Value: bytes.Repeat([]byte("narinfo "), 20)},
			{Kind: wal.Set, Key: []byte("empty")},
			{Kind: wal.Delete, Key: []byte{0, 0xff}},
			{Kind: wal.DeleteRange, Key: []byte("a"), Value: []byte("b")},
		},
	}
	for i := range s.Prev {
		s.Prev[i] = byte(i)
	}
	copy(s.Store[:], "store-store-stor")
	copy(s.Writer[:], "writer-writer-wr")
	return s
}

// wantGolden compares bytes with a file of hexadecimal lines.
func wantGolden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	if *update {
		var text strings.Builder
		for rest := got; len(rest) > 0; rest = rest[min(32, len(rest)):] {
			text.WriteString(hex.EncodeToString(rest[:min(32, len(rest))]) + "\n")
		}
		if err := os.WriteFile(name, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func TestGoldenSegment(t *testing.T) {
	object, err := wal.AppendSegment(nil, goldenSegment())
	if err != nil {
		t.Fatal(err)
	}
	want := wantGolden(t, "testdata/segment-v1.hex", object)
	// The header is ours to fix. What the compressor makes of a body may change with
	// its version; that today's program reads what was written once may not.
	if !bytes.Equal(object[:96], want[:96]) {
		t.Errorf("header is\n%x, want\n%x", object[:96], want[:96])
	}
	for _, object := range [][]byte{object, want} {
		got, digest, err := wal.DecodeSegment(object)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(goldenSegment(), got); diff != "" {
			t.Error(diff)
		}
		if digest != wal.DigestOf(object) {
			t.Error("the digest is not that of the whole object")
		}
	}
}

func TestAppendSegmentKeepsWhatIsThere(t *testing.T) {
	bare, err := wal.AppendSegment(nil, goldenSegment())
	if err != nil {
		t.Fatal(err)
	}
	got, err := wal.AppendSegment([]byte("before"), goldenSegment())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, append([]byte("before"), bare...)) {
		t.Error("appending to something gives other bytes than appending to nothing")
	}
}

func TestEveryDamagedByteIsNoticed(t *testing.T) {
	object, err := wal.AppendSegment(nil, goldenSegment())
	if err != nil {
		t.Fatal(err)
	}
	for i := range object {
		damaged := bytes.Clone(object)
		damaged[i] ^= 0x10
		if _, _, err := wal.DecodeSegment(damaged); err == nil {
			t.Errorf("byte %d was changed and nobody noticed", i)
		}
		if _, _, err := wal.DecodeSegment(object[:i]); err == nil {
			t.Errorf("the object was cut at %d and nobody noticed", i)
		}
	}
	if _, _, err := wal.DecodeSegment(append(bytes.Clone(object), 0)); err == nil {
		t.Error("a byte was added and nobody noticed")
	}
}

// reseal gives an object whose header or body was edited valid checksums again.
func reseal(object []byte) []byte {
	body := object[:len(object)-32]
	binary.BigEndian.PutUint32(body[104:], crc32.Checksum(body[:104], crc32.MakeTable(crc32.Castagnoli)))
	sum := wal.DigestOf(body)
	return append(body, sum[:]...)
}

// withBody returns an object with the given plain body.
func withBody(t *testing.T, plain []byte, claim uint32) []byte {
	t.Helper()
	object, err := wal.AppendSegment(nil, &wal.Segment{Seq: 1, Batch: 1})
	if err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	object = enc.EncodeAll(plain, object[:108])
	binary.BigEndian.PutUint32(object[96:], claim)
	binary.BigEndian.PutUint32(object[100:], uint32(len(object)-108))
	return reseal(append(object, make([]byte, 32)...))
}

func TestDecodeSegmentRefuses(t *testing.T) {
	corrupt := func(what string, object []byte) {
		t.Helper()
		if _, _, err := wal.DecodeSegment(object); !isCorrupt(err) {
			t.Errorf("%s: error is %v, want a CorruptError", what, err)
		}
	}
	tooNew := func(what string, object []byte) {
		t.Helper()
		if _, _, err := wal.DecodeSegment(object); !errors.Is(err, wal.ErrTooOld) {
			t.Errorf("%s: error is %v, want ErrTooOld", what, err)
		}
	}
	body := func(plain ...byte) []byte { return withBody(t, plain, uint32(len(plain))) }
	edit := func(at int, b byte) []byte {
		object := body(0)
		object[at] = b
		return reseal(object)
	}
	corrupt("no count", body())
	corrupt("more entries than bytes", body(200, 1))
	corrupt("an entry cut after its kind", body(1, 1, 0, 0, 0))
	corrupt("a key longer than the body", body(1, 1, 9, 'a', 0))
	corrupt("an empty key", body(1, 1, 0, 1, 'a'))
	corrupt("a delete with a value", body(1, 2, 1, 'a', 1, 'b'))
	corrupt("a range that ends where it starts", body(1, 3, 1, 'a', 1, 'a'))
	corrupt("bytes after the last entry", body(1, 2, 1, 'a', 0, 0))
	corrupt("a wrong plain length", withBody(t, []byte{0}, 2))
	corrupt("a huge plain length", withBody(t, []byte{0}, 1<<31))
	corrupt("seq 0", edit(31, 0))
	corrupt("batch 0", edit(87, 0))
	corrupt("another magic", edit(0, 'X'))
	tooNew("a later version", edit(5, 2))
	tooNew("a flag we do not know", edit(7, 3))
	tooNew("a kind we must know", body(1, 4, 1, 'a', 0))

	seg, _, err := wal.DecodeSegment(body(2, 200, 1, 'a', 1, 'b', 1, 1, 'k', 1, 'v'))
	if err != nil {
		t.Fatalf("an unknown kind that may be ignored: %v", err)
	}
	if want := []wal.Entry{{Kind: wal.Set, Key: []byte("k"), Value: []byte("v")}}; !cmp.Equal(seg.Entries, want) {
		t.Errorf("entries are %v, want %v", seg.Entries, want)
	}
}

func TestDecodeSegmentDoesNotUnpackBombs(t *testing.T) {
	bomb := withBody(t, make([]byte, 64<<20), 100)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, _, err := wal.DecodeSegment(bomb); !isCorrupt(err) {
		t.Errorf("error is %v, want a CorruptError", err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 40<<20 {
		t.Errorf("%d bytes were allocated for a body that claims 100", got)
	}
}

func TestAppendSegmentRefuses(t *testing.T) {
	bad := func(what string, s wal.Segment) {
		t.Helper()
		if got, err := wal.AppendSegment([]byte("x"), &s); err == nil || string(got) != "x" {
			t.Errorf("%s: got %q and %v, want what was there and an error", what, got, err)
		}
	}
	one := func(e wal.Entry) wal.Segment {
		return wal.Segment{Seq: 1, Batch: 1, Entries: []wal.Entry{e}}
	}
	bad("slot 0", wal.Segment{Batch: 1})
	bad("batch 0", wal.Segment{Seq: 1})
	bad("no kind", one(wal.Entry{Key: []byte("k")}))
	bad("a kind nobody knows", one(wal.Entry{Kind: 5, Key: []byte("k")}))
	bad("no key", one(wal.Entry{Kind: wal.Set}))
	bad("a key of 64 KiB and one byte", one(wal.Entry{Kind: wal.Set, Key: make([]byte, 64<<10+1)}))
	bad("a body of more than 16 MiB", one(wal.Entry{Kind: wal.Set, Key: []byte("k"), Value: make([]byte, 16<<20)}))
}

func isCorrupt(err error) bool {
	_, ok := errors.AsType[*wal.CorruptError](err)
	return ok
}

func FuzzDecodeSegment(f *testing.F) {
	object, err := wal.AppendSegment(nil, goldenSegment())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(object)
	f.Add(object[:100])
	f.Fuzz(func(t *testing.T, src []byte) {
		// Nearly everything a fuzzer makes fails at a checksum. Mending them lets it
		// get to what is behind.
		if len(src) >= 140 {
			src = reseal(bytes.Clone(src))
		}
		s, _, err := wal.DecodeSegment(src)
		if err != nil {
			if !isCorrupt(err) && !errors.Is(err, wal.ErrTooOld) {
				t.Fatalf("an error of neither kind: %v", err)
			}
			return
		}
		again, err := wal.AppendSegment(nil, s)
		if err != nil {
			t.Fatalf("cannot encode what was decoded: %v", err)
		}
		back, _, err := wal.DecodeSegment(again)
		if err != nil {
			t.Fatalf("cannot decode what was encoded: %v", err)
		}
		if diff := cmp.Diff(s, back); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzBody looks for bodies that decode to what does not encode to them.
func FuzzBody(f *testing.F) {
	f.Add([]byte{1, 1, 1, 'k', 1, 'v'})
	f.Add([]byte{2, 3, 1, 'a', 1, 'b', 200, 1, 'x', 0})
	f.Fuzz(func(t *testing.T, plain []byte) {
		s, _, err := wal.DecodeSegment(withBody(t, plain, uint32(len(plain))))
		if err != nil {
			return
		}
		if _, err := wal.AppendSegment(nil, s); err != nil {
			t.Fatalf("cannot encode what was decoded: %v", err)
		}
	})
}
