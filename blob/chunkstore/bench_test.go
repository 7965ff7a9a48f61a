package chunkstore_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

func mkBench(b *testing.B) (*chunkstore.Store, *directory, []byte, chunk.Recipe) {
	b.Helper()
	d := newDirectory()
	s := mkStore(b, memblob.New(), d, chunkstore.Options{Profile: mustProfile(b, chunk.DefaultProfile)})
	nar := text(1, 16<<20)
	res, err := s.Write(b.Context(), bytes.NewReader(nar))
	if err != nil {
		b.Fatal(err)
	}
	if err := d.CommitPacks(b.Context(), res.Packs); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(nar)))
	b.ReportAllocs()
	return s, d, nar, res.Recipe
}

func BenchmarkWriteNew(b *testing.B) {
	_, _, nar, _ := mkBench(b)
	for b.Loop() {
		d := newDirectory()
		s := mkStore(b, memblob.New(), d, chunkstore.Options{Profile: mustProfile(b, chunk.DefaultProfile)})
		if _, err := s.Write(b.Context(), bytes.NewReader(nar)); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

func BenchmarkWriteKnown(b *testing.B) {
	s, _, nar, _ := mkBench(b)
	for b.Loop() {
		if _, err := s.Write(b.Context(), bytes.NewReader(nar)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenWholeFrames(b *testing.B) {
	s, _, _, recipe := mkBench(b)
	for b.Loop() {
		rd, err := s.Open(b.Context(), &recipe)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rd); err != nil {
			b.Fatal(err)
		}
		rd.Close()
	}
}

func BenchmarkPlain(b *testing.B) {
	s, _, _, recipe := mkBench(b)
	for b.Loop() {
		rd, err := s.Plain(b.Context(), &recipe)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rd); err != nil {
			b.Fatal(err)
		}
		rd.Close()
	}
}

// BenchmarkRewrite moves a pack as it is, and one of which every fourth chunk is dead.
func BenchmarkRewrite(b *testing.B) {
	mem, d := memblob.New(), newDirectory()
	s := mkStore(b, mem, d, chunkstore.Options{Profile: mustProfile(b, "fast2016-16k")})
	nar := text(1, 32<<20)
	mustWrite(b, s, d, nar)
	jobs := d.jobs(nil)
	for name, every := range map[string]uint32{"copied": 0, "reduced": 4} {
		b.Run(name, func(b *testing.B) {
			stored := int64(0)
			for i := range jobs {
				stored += jobs[i].Layout.Stored()
				jobs[i].Dead = nil
				for at := uint32(0); every > 0 && at < uint32(len(jobs[i].Layout.Sizes)); at += every {
					jobs[i].Dead = append(jobs[i].Dead, chunk.Range{First: at, Count: 1})
				}
			}
			b.SetBytes(stored)
			b.ReportAllocs()
			for b.Loop() {
				if res, err := s.Rewrite(b.Context(), jobs); err != nil || len(res.Objects) == 0 {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVerify reads packs and compares all chunks with their ids.
func BenchmarkVerify(b *testing.B) {
	mem, d := memblob.New(), newDirectory()
	s := mkStore(b, mem, d, chunkstore.Options{Profile: mustProfile(b, "fast2016-16k")})
	nar := text(1, 32<<20)
	mustWrite(b, s, d, nar)
	jobs := d.jobs(nil)
	b.SetBytes(int64(len(nar)))
	for b.Loop() {
		for i := range jobs {
			if rep, err := s.Verify(b.Context(), chunkstore.VerifyJob{Layouts: []chunk.Layout{jobs[i].Layout}}); err != nil || len(rep.Damage) > 0 {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkBatch takes in what is new: a program, in frames of the usual length.
func BenchmarkBatch(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	nar, err := os.ReadFile(self)
	if err != nil {
		b.Fatal(err)
	}
	d := newDirectory()
	s := mkStore(b, nowhere{}, d, chunkstore.Options{ProofKey: testKey, Profile: mustProfile(b, chunk.DefaultProfile), FrameBytes: 512 << 10})
	p := mkPusher(b, s, d)
	p.p, p.frame = mustProfile(b, chunk.DefaultProfile), 512<<10
	type sent struct {
		names []chunk.Name
		sizes []uint32
		data  []byte
	}
	var frames []sent
	plain := make([]byte, 0, p.frame)
	f := sent{}
	pieces := p.pieces(b, nar)
	for i, c := range pieces {
		f.names, f.sizes, plain = append(f.names, c.ref.Name), append(f.sizes, uint32(len(c.data))), append(plain, c.data...)
		if i+1 == len(pieces) || len(plain)+len(pieces[i+1].data) > p.frame {
			f.data = p.enc.EncodeAll(plain, nil)
			frames, f, plain = append(frames, f), sent{}, plain[:0]
		}
	}
	b.SetBytes(int64(len(nar)))
	b.ReportAllocs()
	for b.Loop() {
		d.forget()
		batch, err := s.Batch(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		err = batch.Begin(chunk.SHAState{}, nil)
		for _, f := range frames {
			err = errors.Join(err, batch.Frame(b.Context(), f.names, f.sizes, f.data))
		}
		if err = errors.Join(err, batch.End(b.Context())); err != nil {
			b.Fatal(err)
		}
		if _, err := batch.Settle(b.Context()); err != nil {
			b.Fatal(err)
		}
		batch.Close()
	}
}
