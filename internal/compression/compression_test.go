package compression

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

// samples are data of many shapes.
func samples() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	text := bytes.Repeat([]byte("the same line again and again\n"), 9_000)
	runs := []byte{}
	for i := range 2_000 {
		runs = append(runs, bytes.Repeat([]byte{byte(i)}, i%300)...)
	}
	return map[string][]byte{
		"nothing": {}, "a byte": {7}, "two": []byte("ab"), "four alike": []byte("aaaa"), "a run": bytes.Repeat([]byte{0}, 400_000),
		"noise": noise, "text": text, "runs": runs, "a chunk": noise[:xzChunk], "a chunk and one": noise[:xzChunk+1],
		"all bytes": noise[:70_001], "a period": bytes.Repeat([]byte("abcabd"), 40_000),
	}
}

func encode(t testing.TB, f Format, plain []byte) []byte {
	t.Helper()
	if f == Zstd {
		e, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		return e.EncodeAll(plain, nil)
	}
	var b bytes.Buffer
	w, err := NewWriter(f, &b)
	if err != nil {
		t.Fatal(err)
	}
	for len(plain) > 0 { // in odd pieces
		n := min(len(plain), 1+len(plain)/3)
		if _, err := w.Write(plain[:n]); err != nil {
			t.Fatal(err)
		}
		plain = plain[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decode(f Format, r io.Reader) ([]byte, error) {
	d, err := NewReader(f, r, func(int64) error { return nil })
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

func all() []Format { return []Format{None, Xz, Zstd, Bzip2, Gzip, Brotli, Lz4} }

func TestRoundTrip(t *testing.T) {
	for _, f := range all() {
		for name, plain := range samples() {
			t.Run(f.String()+"/"+name, func(t *testing.T) {
				packed := encode(t, f, plain)
				if got, err := decode(f, iotest.HalfReader(bytes.NewReader(packed))); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%d bytes of %d, %v", len(got), len(plain), err)
				}
				if f == None || f == Zstd {
					return
				}
				// Twice in a file is twice the data, but for brotli, where it is too much.
				got, err := decode(f, bytes.NewReader(append(bytes.Clone(packed), packed...)))
				if f == Brotli {
					if err == nil && len(plain) > 0 {
						t.Error("data after the end: no error")
					}
				} else if err != nil || len(got) != 2*len(plain) {
					t.Errorf("twice: %d bytes of %d, %v", len(got), 2*len(plain), err)
				}
			})
		}
	}
}

// TestTools compares with the programs that others use.
func TestTools(t *testing.T) {
	for f, tool := range map[Format]string{Xz: "xz", Bzip2: "bzip2", Gzip: "gzip", Brotli: "brotli", Lz4: "lz4"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Errorf("no %s here: \"make deps\" installs it", tool)
			continue
		}
		for name, plain := range samples() {
			run := func(in []byte, args ...string) []byte {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), path, args...)
				cmd.Stdin = bytes.NewReader(in)
				out, err := cmd.Output()
				if err != nil {
					t.Errorf("%s %v of %s: %v", tool, args, name, err)
				}
				return out
			}
			if got := run(encode(t, f, plain), "-dc"); !bytes.Equal(got, plain) {
				t.Errorf("%s reads %d bytes of %q as we write it, want %d", tool, len(got), name, len(plain))
			}
			if got, err := decode(f, bytes.NewReader(run(plain, "-c"))); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s as %s writes it: %d bytes, %v; want %d", name, tool, len(got), err, len(plain))
			}
		}
	}
	path, err := exec.LookPath("xz")
	if err != nil {
		return
	}
	for _, args := range [][]string{{"-9"}, {"-0", "-Csha256"}, {"-Cnone"}, {"-T2", "--block-size=100000"}} {
		cmd := exec.CommandContext(t.Context(), path, append(args, "-c")...)
		plain := samples()["noise"][:200_000]
		cmd.Stdin = bytes.NewReader(plain)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(Xz, bytes.NewReader(out)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("xz %v: %d bytes, %v", args, len(got), err)
		}
	}
}

// TestDamage cuts and flips. Whatever comes out, a cut is never a clean end, and an error
// of the source stays what it is.
func TestDamage(t *testing.T) {
	plain := samples()["text"][:4_000]
	broken := errors.New("the line broke")
	for _, f := range all() {
		if f == None {
			continue
		}
		packed := encode(t, f, plain)
		step := max(1, len(packed)/60)
		for i := 0; i < len(packed); i += step {
			if _, err := decode(f, bytes.NewReader(packed[:i])); err == nil && (i > 0 || f != Zstd) {
				t.Errorf("%v cut at %d of %d: no error", f, i, len(packed))
			}
			_, err := decode(f, io.MultiReader(bytes.NewReader(packed[:i]), iotest.ErrReader(broken)))
			if !errors.Is(err, broken) {
				t.Errorf("%v that breaks at %d: %v, want %v", f, i, err, broken)
			}
			flipped := bytes.Clone(packed)
			flipped[i] ^= 0x10
			_, _ = decode(f, bytes.NewReader(flipped)) // must not panic
		}
		if _, err := decode(f, bytes.NewReader(append(bytes.Clone(packed), "junk"...))); err == nil {
			t.Errorf("%v with something after it: no error", f)
		}
	}
}

// TestMemoryIsAnnounced asks for more than there is, at once or later.
func TestMemoryIsAnnounced(t *testing.T) {
	plain := samples()["noise"]
	no := errors.New("no memory")
	for _, f := range all() {
		asked := 0
		_, err := NewReader(f, bytes.NewReader(encode(t, f, plain)), func(n int64) error {
			asked++
			if n < baseMemory || n > MaxMemory {
				t.Errorf("%v needs %d bytes", f, n)
			}
			return no
		})
		if !errors.Is(err, no) || asked != 1 {
			t.Errorf("%v: %v after %d questions, want %v after one", f, err, asked, no)
		}
	}
	// The largest block of lz4 is 8 MiB, and there is what it is made from; ours are smaller.
	_, err := NewReader(Lz4, strings.NewReader(lz4Beginning), func(n int64) error {
		if n < 16<<20 {
			t.Errorf("lz4 needs %d bytes", n)
		}
		return no
	})
	if !errors.Is(err, no) {
		t.Errorf("lz4: %v", err)
	}
	if size := encode(t, Lz4, plain)[5] >> 4 & 7; size != 5 {
		t.Errorf("blocks of lz4 have size %d, want 5, which is 256 KiB", size)
	}
	// mk announces a dictionary of 2^(11+code/2) bytes.
	mk := func(code byte) []byte {
		packed := encode(t, Xz, plain)
		block := packed[xzHeaderBytes:][:xzBlockHeader]
		block[4] = code
		binary.LittleEndian.PutUint32(block[8:], crc32.ChecksumIEEE(block[:8]))
		return packed
	}
	if _, err := decode(Xz, bytes.NewReader(mk(18))); err != nil {
		t.Error(err)
	}
	if _, err := decode(Xz, bytes.NewReader(mk(34))); !errors.Is(err, ErrMemory) {
		t.Errorf("dictionary of 256 MiB: %v, want %v", err, ErrMemory)
	}
	if _, err := decode(Xz, bytes.NewReader(append(mk(18), mk(30)...))); !errors.Is(err, ErrMemory) {
		t.Errorf("a second stream that needs more than the first announced: %v, want %v", err, ErrMemory)
	}
	// A zstd frame with a window of 1 GiB.
	if _, err := decode(Zstd, bytes.NewReader([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 1, 0, 0, 0})); !errors.Is(err, ErrMemory) {
		t.Errorf("window of 1 GiB: %v, want %v", err, ErrMemory)
	}
}

// TestShortBlocks announces a dictionary again and again, for nothing: each is memory to be
// cleared, from sixteen bytes that were sent.
func TestShortBlocks(t *testing.T) {
	mk := func(blocks int) []byte {
		packed := encode(t, Xz, nil)[:xzHeaderBytes]
		block := []byte{xzBlockHeader/4 - 1, 0, xzFilterLZMA2, 1, 30, 0, 0, 0} // 64 MiB
		block = binary.LittleEndian.AppendUint32(block, crc32.ChecksumIEEE(block))
		block = append(block, 0, 0, 0, 0, 0, 0, 0, 0) // the end of chunks, padding, CRC-32
		return append(packed, bytes.Repeat(block, blocks)...)
	}
	if _, err := decode(Xz, bytes.NewReader(mk(3))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("three blocks without an index: %v, want %v", err, io.ErrUnexpectedEOF)
	}
	if _, err := decode(Xz, bytes.NewReader(mk(200))); !errors.Is(err, errXzShortBlocks) {
		t.Errorf("200 empty blocks with dictionaries of 64 MiB: %v, want %v", err, errXzShortBlocks)
	}
	// Blocks that are as long as their dictionaries may be many.
	x := newXzReader(nil, maxWindow)
	for range 1_000 {
		if err := x.announce(64 << 20); err != nil {
			t.Fatal(err)
		}
		x.plain += 64 << 20
	}
}

func TestNames(t *testing.T) {
	for _, f := range all() {
		if got, ok := Parse(f.String()); got != f || !ok {
			t.Errorf("%v: %v, %v", f, got, ok)
		}
		if f == None {
			continue
		}
		if base, got, ok := CutSuffix("x.nar" + formats()[f].suffix); base != "x.nar" || got != f || !ok {
			t.Errorf("%v: %q, %v, %v", f, base, got, ok)
		}
		if got, known := Detect(encode(t, f, []byte("x"))); f != Brotli && (got != f || !known) {
			t.Errorf("detect %v: %v, %v", f, got, known)
		}
	}
	if _, ok := Parse("lzip"); ok {
		t.Error("lzip is known")
	}
	if _, _, found := CutSuffix("x.nar"); found {
		t.Error("an ending is seen where there is none")
	}
	for name, begin := range map[string]string{"lzip": "LZIP\x01...", "compress": "\x1f\x9d\x90.....", "lzma": "\x5d\x00\x00\x80\x00..."} {
		if _, known := Detect([]byte(begin)); known {
			t.Errorf("%s passes for plain data", name)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, format := range all() {
		f.Add(uint8(format), encode(f, format, []byte("some text, some text, some text")))
	}
	f.Fuzz(func(t *testing.T, format uint8, data []byte) {
		d, err := NewReader(Format(format%7), bytes.NewReader(data), func(n int64) error {
			if n > MaxMemory {
				return fmt.Errorf("%d bytes", n)
			}
			if n > lz4Memory {
				return ErrMemory // not on this machine
			}
			return nil
		})
		if err != nil {
			return
		}
		defer d.Close()
		_, _ = io.CopyN(io.Discard, d, 1<<20)
	})
}

func FuzzWriter(f *testing.F) {
	f.Add(uint8(Bzip2), []byte("aaaaaaaaaaaabcabcabc"))
	f.Fuzz(func(t *testing.T, format uint8, plain []byte) {
		packed := encode(t, Format(format%7), plain)
		if got, err := decode(Format(format%7), bytes.NewReader(packed)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%v: %d bytes of %d, %v", Format(format%7), len(got), len(plain), err)
		}
	})
}
