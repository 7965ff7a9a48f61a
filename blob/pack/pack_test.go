package pack_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

func TestFooter(t *testing.T) {
	id := pack.ID{Epoch: 2, Rand: 3}
	object, np := mkPack(id)
	f, err := pack.DecodeFooter(id, object, int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	want := f
	if d := cmp.Diff(np, f.NewPack(f.Part(id))); d != "" {
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
	if d := cmp.Diff(np, f.NewPack(f.Part(id))); d != "" {
		t.Error(d)
	}
	if f, err = pack.ReadFooterOf(t.Context(), bucket, &np.Layout); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(np, f.NewPack(f.Part(id))); d != "" {
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
	object, np := mkPack(id)
	last := np.Layout.Frames[1]
	for i := last.Offset + last.Size; i < int64(len(object)); i++ {
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

func FuzzDecodeFooter(f *testing.F) {
	id := pack.ID{Epoch: 2, Rand: 3}
	object, _ := mkPack(id)
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
