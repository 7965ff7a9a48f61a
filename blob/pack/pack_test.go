package pack_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/blob/pack"
)

// mkPack returns a pack of two frames with three chunks.
func mkPack(id pack.ID) ([]byte, chunk.NewPack) {
	b := pack.NewBuilder(nil)
	b.Add([]byte("frame one"), []chunk.ID{{1}, {2}}, []uint32{100, 200})
	b.Add([]byte("frame 2"), []chunk.ID{{3}}, []uint32{1})
	return b.Seal(id)
}

const goldenPack = "6672616d65206f6e65" + "6672616d652032" +
	"01" + "02000000" + "0300000000000000" + "02" + "09" + "7699c442" + "02" + "07" + "093be192" + "01" +
	"0064" + "0100000000000000000000000000000000000000000000000000000000000000" +
	"00c801" + "0200000000000000000000000000000000000000000000000000000000000000" +
	"0001" + "0300000000000000000000000000000000000000000000000000000000000000" +
	"81000000" + "c828e264" + "434c5031"

func TestGolden(t *testing.T) {
	object, _ := mkPack(pack.ID{Epoch: 2, Rand: 3})
	if got := hex.EncodeToString(object); got != goldenPack {
		t.Errorf("pack is\n%s, want\n%s", got, goldenPack)
	}
}

// mkMoved returns an object with what is left of two packs: chunk 1 is gone from the
// first frame of one of them, its second frame altogether; the other one was moved whole.
func mkMoved(id pack.ID) ([]byte, pack.Footer) {
	g := pack.NewGatherer(nil)
	g.Begin(pack.ID{Epoch: 1, Rand: 5}, 9)
	g.Add([]byte("reduced"), 0, 3, []pack.Entry{{Index: 0, Size: 100, ID: chunk.ID{1}}, {Index: 2, Size: 200, ID: chunk.ID{2}}})
	g.Add([]byte("whole"), 6, 2, []pack.Entry{{Index: 6, Size: 1, ID: chunk.ID{3}}, {Index: 7, Size: 2, ID: chunk.ID{4}}})
	g.Begin(pack.ID{Epoch: 1, Rand: 6}, 1)
	g.Add([]byte("taken back"), 0, 1, []pack.Entry{{Index: 0, Size: 9, ID: chunk.ID{9}}})
	g.Cut()
	g.Begin(pack.ID{Epoch: 2, Rand: 7}, 1)
	g.Add([]byte("other"), 0, 1, []pack.Entry{{Index: 0, Size: 300, ID: chunk.ID{5}}})
	return g.Seal(id)
}

const goldenMoved = "72656475636564" + "77686f6c65" + "6f74686572" +
	"02" + "02000000" + "0300000000000000" + "02" +
	"01000000" + "0500000000000000" + "0902" +
	"000307" + "a93f612e" + "02" +
	"000064" + "0100000000000000000000000000000000000000000000000000000000000000" +
	"0100c801" + "0200000000000000000000000000000000000000000000000000000000000000" +
	"030205" + "accfada9" + "02" +
	"000001" + "0300000000000000000000000000000000000000000000000000000000000000" +
	"000002" + "0400000000000000000000000000000000000000000000000000000000000000" +
	"02000000" + "0700000000000000" + "0101" +
	"000105" + "e4da38b9" + "01" +
	"0000ac02" + "0500000000000000000000000000000000000000000000000000000000000000"

func TestGoldenMoved(t *testing.T) {
	id := pack.ID{Epoch: 2, Rand: 3}
	object, made := mkMoved(id)
	body := hex.EncodeToString(object[:len(object)-pack.TrailerBytes])
	if body != goldenMoved {
		t.Errorf("object is\n%s, want\n%s", body, goldenMoved)
	}
	f, err := pack.DecodeFooter(id, object, int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(made, f); d != "" {
		t.Error(d)
	}
	if f.Section(pack.ID{Epoch: 1, Rand: 6}) != nil {
		t.Error("a pack that was taken back is there")
	}
	got := f.NewPack(f.Section(pack.ID{Epoch: 1, Rand: 5}))
	want := chunk.NewPack{
		Layout: chunk.Layout{
			ID: pack.ID{Epoch: 1, Rand: 5}, Object: id, Bytes: int64(len(object)), Footer: 17,
			Frames: []chunk.Frame{
				{Offset: 0, Size: 7, Checksum: pack.CRC([]byte("reduced")), Chunks: 3},
				{Chunks: 3},
				{Offset: 7, Size: 5, Checksum: pack.CRC([]byte("whole")), Chunks: 2},
				{Chunks: 1},
			},
			Sizes: []uint32{100, 0, 200, 0, 0, 0, 1, 2, 0},
		},
		IDs: []chunk.ID{{1}, {}, {2}, {}, {}, {}, {3}, {4}, {}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got, rest, err := chunk.DecodeLayout(chunk.AppendLayout(nil, &want.Layout)); err != nil || len(rest) > 0 {
		t.Errorf("its layout does not survive its codec: %v", err)
	} else if err := f.Agrees(&got); err != nil {
		t.Error(err)
	}
	bucket := memblob.New()
	if _, err := bucket.Put(t.Context(), pack.Key(id), object); err != nil {
		t.Fatal(err)
	}
	for _, read := range []func() (pack.Footer, error){
		func() (pack.Footer, error) { return pack.ReadFooterOf(t.Context(), bucket, &want.Layout) },
		func() (pack.Footer, error) { return pack.ReadFooter(t.Context(), bucket, id, int64(len(object))) },
	} {
		if f, err := read(); err != nil {
			t.Error(err)
		} else if d := cmp.Diff(made, f); d != "" {
			t.Error(d)
		}
	}
	var corrupt *pack.CorruptError
	want.Layout.ID.Rand = 6
	if err := f.Agrees(&want.Layout); !errors.As(err, &corrupt) {
		t.Errorf("about a pack it does not have: %v, want a CorruptError", err)
	}
}

// TestBadSections checks footers that are well formed and make no sense.
func TestBadSections(t *testing.T) {
	id := pack.ID{Epoch: 2, Rand: 3}
	for name, damage := range map[string]func(*pack.Footer){
		"":                          func(*pack.Footer) {},
		"a pack twice":              func(f *pack.Footer) { f.Sections[1].Pack = f.Sections[0].Pack },
		"its own pack among others": func(f *pack.Footer) { f.Sections[1].Pack = id },
		"too many chunks":           func(f *pack.Footer) { f.Sections[0].Chunks = chunk.MaxPackChunks + 1 },
		"a frame behind the end":    func(f *pack.Footer) { f.Sections[0].Chunks = 7 },
		"more chunks than places":   func(f *pack.Footer) { f.Sections[0].Frames[1].Chunks = 1 },
		"no chunk in a frame":       func(f *pack.Footer) { f.Sections[0].Frames[1].Entries = nil },
		"no frame":                  func(f *pack.Footer) { f.Sections[1].Frames = nil },
		"a huge chunk":              func(f *pack.Footer) { f.Sections[1].Frames[0].Entries[0].Size = pack.MaxFramePlain + 1 },
		"a frame too large to decode": func(f *pack.Footer) {
			f.Sections[0].Frames[0].Entries[0].Size, f.Sections[0].Frames[0].Entries[1].Size = pack.MaxFramePlain/2+1, pack.MaxFramePlain/2
		},
		"a longer frame": func(f *pack.Footer) { f.Sections[0].Frames[0].Size++ },
	} {
		object, f := mkMoved(id)
		frames := object[:f.Offset()]
		damage(&f)
		object = pack.AppendFooter(bytes.Clone(frames), &f)
		_, err := pack.DecodeFooter(id, object, int64(len(object)))
		var corrupt *pack.CorruptError
		if (name == "") != (err == nil) || err != nil && !errors.As(err, &corrupt) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestKeys(t *testing.T) {
	id := pack.ID{Epoch: 2, Rand: 3}
	if got, err := pack.ParseKey(pack.Key(id)); err != nil || got != id {
		t.Errorf("%v comes back as %v, %v", id, got, err)
	}
	for _, bad := range []blob.Key{"", "pack/", "pack/1/2", "packs/00000002/0000000000000003", "00000002/0000000000000003"} {
		if got, err := pack.ParseKey(bad); err == nil {
			t.Errorf("%q is accepted as %v", bad, got)
		}
	}
}

func TestFooter(t *testing.T) {
	id := pack.ID{Epoch: 2, Rand: 3}
	object, np := mkPack(id)
	f, err := pack.DecodeFooter(id, object, int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	want := f
	if d := cmp.Diff(np, f.NewPack(f.Section(id))); d != "" {
		t.Error(d)
	}
	var short *pack.ShortError
	if _, err := pack.DecodeFooter(id, object[len(object)-20:], int64(len(object))); !errors.As(err, &short) {
		t.Errorf("with 20 bytes: %v, want a ShortError", err)
	} else if f, err := pack.DecodeFooter(id, object[int64(len(object))-short.Need:], int64(len(object))); err != nil {
		t.Errorf("with what was asked for: %v", err)
	} else if d := cmp.Diff(want, f); d != "" {
		t.Error(d)
	}
}

func TestReadFooter(t *testing.T) {
	// A pack whose footer is longer than the first guess.
	b := pack.NewBuilder(nil)
	for i := range uint32(5000) {
		b.Add([]byte("some frame"), []chunk.ID{{byte(i), byte(i >> 8)}}, []uint32{i + 1})
	}
	id := pack.ID{Epoch: 1, Rand: 9}
	object, np := b.Seal(id)
	bucket := memblob.New()
	if _, err := bucket.Put(t.Context(), pack.Key(id), object); err != nil {
		t.Fatal(err)
	}
	f, err := pack.ReadFooter(t.Context(), bucket, id, int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(np, f.NewPack(f.Section(id))); d != "" {
		t.Error(d)
	}
	if f, err = pack.ReadFooterOf(t.Context(), bucket, &np.Layout); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(np, f.NewPack(f.Section(id))); d != "" {
		t.Error(d)
	}
	np.Layout.Sizes[77]++
	var corrupt *pack.CorruptError
	if _, err := pack.ReadFooterOf(t.Context(), bucket, &np.Layout); !errors.As(err, &corrupt) {
		t.Errorf("footer and index differ: %v, want a CorruptError", err)
	}
}

// TestDamage changes every byte of the footer and of the trailer in turn.
func TestDamage(t *testing.T) {
	id := pack.ID{Epoch: 2, Rand: 3}
	pushed, np := mkPack(id)
	wantDamageFound(t, id, pushed, np.Layout.FooterOffset())
	moved, f := mkMoved(id)
	wantDamageFound(t, id, moved, f.Offset())
}

func wantDamageFound(t *testing.T, id pack.ID, object []byte, footer int64) {
	t.Helper()
	for i := footer; i < int64(len(object)); i++ {
		bad := bytes.Clone(object)
		bad[i] ^= 0x10
		_, err := pack.DecodeFooter(id, bad, int64(len(bad)))
		var corrupt *pack.CorruptError
		if !errors.As(err, &corrupt) {
			// A longer footer length asks for more than there is.
			t.Errorf("byte %d changed: %v, want a CorruptError", i, err)
			continue
		}
		if corrupt.Key != pack.Key(id) || corrupt.Expected == "" || corrupt.Found == "" || corrupt.Offset > i {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	for n := range len(object) {
		if _, err := pack.DecodeFooter(id, object[:n], int64(n)); err == nil {
			t.Errorf("the first %d of %d bytes are accepted", n, len(object))
		}
	}
	if _, err := pack.DecodeFooter(pack.ID{Epoch: 2, Rand: 4}, object, int64(len(object))); err == nil || !strings.Contains(err.Error(), "pack id") {
		t.Errorf("under another name: %v", err)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(string(pack.Key(pack.ID{Epoch: 2, Rand: 3})))
	f.Fuzz(func(t *testing.T, key string) {
		if id, err := pack.ParseKey(blob.Key(key)); err == nil && pack.Key(id) != blob.Key(key) {
			t.Errorf("%q is the key of %v, which has another", key, id)
		}
	})
}

func FuzzDecodeFooter(f *testing.F) {
	id := pack.ID{Epoch: 2, Rand: 3}
	object, _ := mkPack(id)
	moved, _ := mkMoved(id)
	f.Add(moved, true)
	f.Add(append([]byte{17}, moved[17:]...), true)
	f.Add(object, true)
	f.Add(object[10:], false)
	f.Fuzz(func(t *testing.T, tail []byte, mend bool) {
		if mend && len(tail) > pack.TrailerBytes {
			tail = seal(tail)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := pack.DecodeFooter(id, tail, int64(len(tail)))
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > uint64(len(tail))*100+64<<10 {
			t.Fatalf("decoding %d bytes allocated %d", len(tail), n)
		}
		if err != nil {
			return
		}
		again := pack.AppendFooter(nil, &got)
		if !bytes.HasSuffix(tail, again) {
			t.Fatalf("decoded, but would be written as %x", again)
		}
	})
}

// seal makes the trailer fit, so that the fuzzer gets past the checksum: all of
// tail but the trailer and as many frames as its first byte says is the footer.
func seal(tail []byte) []byte {
	body := tail[:len(tail)-pack.TrailerBytes]
	frames := min(int(body[0]), len(body)-1)
	l := len(body) - frames
	out := bytes.Clone(body)
	out = append(out, byte(l), byte(l>>8), byte(l>>16), byte(l>>24))
	sum := pack.CRC(body[frames:])
	out = append(out, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
	return append(out, "CLP1"...)
}
