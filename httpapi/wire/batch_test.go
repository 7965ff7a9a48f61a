package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob/chunk"
)

func testLimits() BatchLimits {
	return BatchLimits{ChunkMin: 4, ChunkMax: 16, FrameBytes: 64, SegmentBytes: 128, Segments: 3, Chunks: 40}
}

func stateAfter(text string) chunk.SHAState {
	h := sha256.New()
	h.Write([]byte(text))
	s, err := chunk.SHAStateOf(h)
	if err != nil {
		panic(err)
	}
	return s
}

// goldenBatch is one of everything.
func goldenBatch() []byte {
	b := AppendBatch(nil)
	b = AppendSegment(b, chunk.SHAState{})
	b = AppendFrame(b, []chunk.Name{{1, 2}, {3}}, []uint32{5, 1}, []byte("frame"))
	b = AppendKnown(b, []chunk.Ref{{Name: chunk.Name{7: 4}, Proof: chunk.Proof{5}}})
	b = AppendSegmentEnd(b)
	b = AppendSegment(b, stateAfter("abc"))
	b = AppendKnown(b, []chunk.Ref{{}, {Name: chunk.Name{9}}})
	return AppendSegmentEnd(b)
}

const goldenBatchHex = "43444231" + // CDB1
	"53" + "00" + // S, the beginning
	"46" + "02" + "0102000000000000" + "05" + "0300000000000000" + "01" + "05" + "6672616d65" + // F
	"4b" + "01" + "0000000000000004" + "0500000000000000" + // K
	"45" + // E
	"53" + "01" + "6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19" + "03" + "616263" + // S, after abc
	"4b" + "02" + "0000000000000000" + "0000000000000000" + "0900000000000000" + "0000000000000000" +
	"45"

func TestBatchGolden(t *testing.T) {
	if got := hex.EncodeToString(goldenBatch()); got != goldenBatchHex {
		t.Fatalf("batch is\n%s, want\n%s", got, goldenBatchHex)
	}
	for name, r := range map[string]io.Reader{
		"at once":      bytes.NewReader(goldenBatch()),
		"in bytes":     iotest.OneByteReader(bytes.NewReader(goldenBatch())),
		"end at once":  iotest.DataErrReader(bytes.NewReader(goldenBatch())),
		"half of each": iotest.HalfReader(bytes.NewReader(goldenBatch())),
	} {
		b := NewBatchReader(r, testLimits())
		var kinds []BatchKind
		for {
			item, err := b.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			kinds = append(kinds, item.Kind)
			switch seg, at := b.Place(); {
			case item.Kind == BatchFrame && (string(item.Frame) != "frame" || !cmp.Equal(item.Sizes, []uint32{5, 1}) || !cmp.Equal(item.Names, []chunk.Name{{1, 2}, {3}})):
				t.Errorf("%s: frame is %+v", name, item)
			case item.Kind == BatchSegment && seg == 1 && item.State != stateAfter("abc"):
				t.Errorf("%s: state is %+v", name, item.State)
			case item.Kind == BatchKnown && seg == 0 && (at != 1 || !cmp.Equal(item.Refs, []chunk.Ref{{Name: chunk.Name{7: 4}, Proof: chunk.Proof{5}}})):
				t.Errorf("%s: item %d is %+v", name, at, item)
			}
		}
		want := []BatchKind{BatchSegment, BatchFrame, BatchKnown, BatchEnd, BatchSegment, BatchKnown, BatchEnd}
		if diff := cmp.Diff(want, kinds); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestBatchCut: every beginning of a batch is malformed or a batch of fewer segments.
func TestBatchCut(t *testing.T) {
	whole := goldenBatch()
	first := bytes.IndexByte(whole, 'E') + 1
	for n := range len(whole) {
		b := NewBatchReader(bytes.NewReader(whole[:n]), testLimits())
		var err error
		for err == nil {
			_, err = b.Next()
		}
		if n == first {
			if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("cut after the first segment: %v", err)
			}
			continue
		}
		if bad, ok := errors.AsType[*BatchError](err); !ok || !errors.Is(bad, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
}

func TestBatchRefused(t *testing.T) {
	begin := AppendSegment(AppendBatch(nil), chunk.SHAState{})
	add := func(f func([]byte) []byte) []byte { return f(bytes.Clone(begin)) }
	names := func(n int) []chunk.Name { return make([]chunk.Name, n) }
	sizes := func(n ...uint32) []uint32 { return n }
	for _, c := range []struct {
		name string
		body []byte
		want string
	}{
		{"nothing of ours", []byte("CDB2S\x00E"), "begins with"},
		{"item before a segment", append(AppendBatch(nil), 'K'), "where a segment would begin"},
		{"segment in a segment", append(bytes.Clone(begin), 'S', 0), "where an item would begin"},
		{"empty segment", AppendSegmentEnd(bytes.Clone(begin)), "empty"},
		{"state of another kind", append(AppendBatch(nil), append([]byte{'S', 2}, make([]byte, 40)...)...), "kind is 0x2"},
		{"state after nothing", append(AppendBatch(nil), append([]byte{'S', 1}, make([]byte, 33)...)...), "no bytes went into it"},
		{"no chunks", append(bytes.Clone(begin), 'F', 0), "no chunks"},
		{"many chunks", append(bytes.Clone(begin), 'F', 18), "number of chunks is 18"},
		{"chunk of nothing", add(func(b []byte) []byte { return AppendFrame(b, names(1), sizes(0), nil) }), "0 bytes"},
		{"small chunk before the last", add(func(b []byte) []byte { return AppendFrame(b, names(2), sizes(3, 5), nil) }), "has 3 bytes"},
		{"large chunk", add(func(b []byte) []byte { return AppendFrame(b, names(1), sizes(17), nil) }), "size of a chunk is 17"},
		{"large frame", add(func(b []byte) []byte { return AppendFrame(b, names(5), sizes(16, 16, 16, 16, 1), nil) }), "more than 64 bytes"},
		{"long encoding", add(func(b []byte) []byte { return AppendFrame(b, names(1), sizes(5), make([]byte, 129)) }), "length of the frame is 129"},
		{"large segment", add(func(b []byte) []byte {
			for range 3 {
				b = AppendFrame(b, names(3), sizes(16, 16, 16), []byte("x"))
			}
			return b
		}), "more than 128 plain bytes"},
		{"many known chunks", add(func(b []byte) []byte {
			return AppendKnown(AppendKnown(b, make([]chunk.Ref, 33)), make([]chunk.Ref, 1))
		}), "number of chunks is 1, want at most 0"},
		{"no known chunks", add(func(b []byte) []byte { return AppendKnown(b, nil) }), "no chunks"},
		{"long number", append(bytes.Clone(begin), 'K', 0x81, 0), "malformed number"},
		{"huge number", append(bytes.Clone(begin), append([]byte{'K'}, bytes.Repeat([]byte{0xff}, 10)...)...), "malformed number"},
		{"many segments", func() []byte {
			b := AppendBatch(nil)
			for range 4 {
				b = AppendSegmentEnd(AppendKnown(AppendSegment(b, chunk.SHAState{}), make([]chunk.Ref, 1)))
			}
			return b
		}(), "too many segments"},
	} {
		b := NewBatchReader(bytes.NewReader(c.body), testLimits())
		var err error
		for err == nil {
			_, err = b.Next()
		}
		if bad, ok := errors.AsType[*BatchError](err); !ok || !strings.Contains(bad.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	body := AppendSegmentEnd(AppendKnown(AppendSegment(AppendBatch(nil), chunk.SHAState{}), make([]chunk.Ref, 33)))
	body = AppendFrame(AppendSegment(body, chunk.SHAState{}), names(8), sizes(5, 5, 5, 5, 5, 5, 5, 5), []byte("frame"))
	long := NewBatchReader(bytes.NewReader(body), testLimits())
	var err error
	for err == nil {
		_, err = long.Next()
	}
	if !errors.Is(err, ErrBatchChunks) || !strings.Contains(err.Error(), "segment 1, item 0") {
		t.Errorf("41 chunks: %v", err)
	}
	broken := errors.New("the line broke")
	b := NewBatchReader(io.MultiReader(bytes.NewReader(begin), iotest.ErrReader(broken)), testLimits())
	_, _ = b.Next()
	if _, err := b.Next(); !errors.Is(err, broken) {
		t.Errorf("broken line: %v", err)
	}
}

func TestReadRefs(t *testing.T) {
	refs := make([]chunk.Ref, 1030)
	for i := range refs {
		refs[i] = chunk.Ref{Name: chunk.Name{byte(i), byte(i >> 8)}, Proof: chunk.Proof{byte(i * 3)}}
	}
	body := AppendRefs(nil, refs)
	got, err := ReadRefs(iotest.HalfReader(bytes.NewReader(body)), len(refs))
	if diff := cmp.Diff(refs, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if _, err := ReadRefs(bytes.NewReader(body), len(refs)-1); !isQueryError(err) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := ReadRefs(bytes.NewReader(body[:len(body)-1]), len(refs)); !isQueryError(err) {
		t.Errorf("half a chunk: %v", err)
	}
	cut := io.MultiReader(bytes.NewReader(body[:32]), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := ReadRefs(cut, len(refs)); err == nil || isQueryError(err) {
		t.Errorf("a connection that was cut: %v", err)
	}
	broken := errors.New("the line broke")
	if _, err := ReadRefs(io.MultiReader(bytes.NewReader(body[:16]), iotest.ErrReader(broken)), 9); !errors.Is(err, broken) {
		t.Errorf("broken line: %v", err)
	}
	if got, err := ReadRefs(bytes.NewReader(nil), 9); err != nil || len(got) != 0 {
		t.Errorf("nothing: %v, %v", got, err)
	}
}

func isQueryError(err error) bool {
	_, ok := errors.AsType[*QueryError](err)
	return ok
}

func TestBitmap(t *testing.T) {
	b := MakeBitmap(10)
	b.Set(0)
	b.Set(9)
	if diff := cmp.Diff(Bitmap{1, 2}, b); diff != "" || b.Check(10) != nil {
		t.Error(diff, b.Check(10))
	}
	if !b.Has(9) || b.Has(8) || b.Has(100) {
		t.Error("bits are not what was set")
	}
	if b.Check(9) == nil || b.Check(17) == nil || b.Check(8) == nil {
		t.Error("a bitmap of another length is taken")
	}
	if MakeBitmap(0).Check(0) != nil {
		t.Error("no bits are refused")
	}
}
