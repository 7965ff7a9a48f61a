package chunkstore_test

import (
	"context"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

// repeating is a stream that is one pattern over and over, with a small edit here and
// there: most of it is stretches of frames that it shares with itself.
type repeating struct {
	pattern  []byte
	at, size int64
	every    int64 // bytes from edit to edit
}

func newRepeating(size int64) *repeating {
	r := &repeating{pattern: make([]byte, 1<<20), size: size, every: 300_000}
	rand.NewChaCha8([32]byte{3}).Read(r.pattern)
	for i := range r.pattern {
		r.pattern[i] &= 0x1f
	}
	return r
}

func (r *repeating) Read(p []byte) (int, error) {
	if r.at == r.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.size-r.at)]
	for n := 0; n < len(p); {
		n += copy(p[n:], r.pattern[(r.at+int64(n))%int64(len(r.pattern)):])
	}
	for i := (r.every - r.at%r.every) % r.every; i < int64(len(p)); i += r.every {
		p[i] ^= byte(0x80 | (r.at+i)/r.every&0x7f) // every edit another one, for a while
	}
	r.at += int64(len(p))
	return len(p), nil
}

// peak is a writer that looks at the memory in use now and then.
type peak struct {
	most, allocated uint64
	n, next         int64
}

func (p *peak) Write(b []byte) (int, error) {
	if p.n += int64(len(b)); p.n >= p.next {
		p.next = p.n + 2<<20
		p.look()
	}
	return len(b), nil
}

func (p *peak) look() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p.most, p.allocated = max(p.most, m.HeapInuse), m.TotalAlloc
}

// TestReadMemory reads a NAR that repeats itself from a cold store. The memory it takes
// must not depend on how long it is, and buffers must come back: what is allocated
// anew is a small part of what is read.
func TestReadMemory(t *testing.T) {
	size := int64(192 << 20)
	if testing.Short() {
		size = 64 << 20
	}
	if raceDetector {
		size = 8 << 20
	}
	b, d := memblob.New(), newDirectory()
	o := chunkstore.Options{Profile: mustProfile(t, "fast2016-16k")}
	s := mkStore(t, b, d, o)
	res, err := s.Write(t.Context(), newRepeating(size))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.CommitPacks(t.Context(), res.Packs); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if n := len(res.Recipe.Served.Segments); int64(n) < size>>20 {
		t.Fatalf("%d stretches make no good test", n)
	}
	s = mkStore(t, b, d, o)
	runtime.GC()
	var before, p peak
	before.look()
	rd, err := s.Open(t.Context(), &res.Recipe)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if n, err := io.Copy(&p, struct{ io.Reader }{rd}); err != nil || n != res.Recipe.Served.Size {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	took, allocated := int64(p.most-before.most), int64(p.allocated-before.allocated)
	t.Logf("%d MiB: %d MiB more in use, %d MiB allocated", size>>20, took>>20, allocated>>20)
	if !raceDetector && (took > 96<<20 || allocated > size) {
		t.Errorf("reading %d MiB took %d MiB and allocated %d, want at most 96 and no more than was read", size>>20, took>>20, allocated>>20)
	}
}

// counted passes a stream on and looks at the memory in use now and then.
type counted struct {
	io.Reader
	p *peak
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.p.Write(b[:n])
	return n, err
}

// TestWriteMemory writes new NARs at once. Here, too, buffers must come back.
func TestWriteMemory(t *testing.T) {
	size := int64(24 << 20)
	if raceDetector {
		size = 1 << 20
	}
	const writers = 8
	d := newDirectory()
	s := mkStore(t, nowhere{memblob.New()}, d, chunkstore.Options{Profile: mustProfile(t, "fast2016-16k")})
	runtime.GC()
	var before, p peak
	before.look()
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			var r io.Reader = &masked{r: rand.NewChaCha8([32]byte{byte(i)}), left: size}
			if i == 0 {
				r = counted{r, &p}
			}
			if _, err := s.Write(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	took, allocated := int64(p.most-before.most), int64(p.allocated-before.allocated)
	t.Logf("%d MiB: %d MiB more in use, %d MiB allocated", writers*size>>20, took>>20, allocated>>20)
	if !raceDetector && (took > 192<<20 || allocated > 2*writers*size) {
		t.Errorf("writing %d MiB took %d MiB and allocated %d, want at most 192 and twice what was written", writers*size>>20, took>>20, allocated>>20)
	}
}

// nowhere is a bucket that forgets what it is given.
type nowhere struct{ blob.Bucket }

func (nowhere) Put(context.Context, blob.Key, []byte) (blob.Tag, error) { return "", nil }

// masked is a stream that compresses to about a third and never repeats.
type masked struct {
	r    *rand.ChaCha8
	left int64
}

func (m *masked) Read(p []byte) (int, error) {
	if m.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), m.left)]
	m.r.Read(p)
	for i := range p {
		p[i] &= 0x07
	}
	m.left -= int64(len(p))
	return len(p), nil
}
