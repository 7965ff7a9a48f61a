package index

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/wal"
)

// TestCrash loses power at random moments and wants a prefix to survive.
func TestCrash(t *testing.T) {
	h := mkHistory(120, 2)
	want := h.states(t)
	r := rand.New(rand.NewPCG(7, 7))
	survived := 0
	for trial := range 12 {
		fs := vfs.NewCrashableMem()
		db := mustOpen(t, "idx", Options{FS: fs, FlushSegments: 1 + r.IntN(20)})
		for at := 0; at < len(h.segments); {
			next := min(len(h.segments), at+1+r.IntN(30))
			h.applyTo(t, db, next)
			crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: rand.New(rand.NewPCG(uint64(trial), uint64(next)))})
			mustClose(t, db)
			fs = crashed
			db = mustOpen(t, "idx", Options{FS: fs, FlushSegments: 1 + r.IntN(20)})
			seq, _, _ := db.Position()
			if int(seq) > next || mustDigest(t, db) != want[seq] {
				t.Fatalf("trial %d: after a crash at %d it is at %v with another state", trial, next, seq)
			}
			survived += int(seq)
			if at = next; r.IntN(4) == 0 {
				break
			}
		}
		h.applyTo(t, db, len(h.segments))
		if mustDigest(t, db) != want[len(h.segments)] {
			t.Fatalf("trial %d: another final state", trial)
		}
		mustClose(t, db)
	}
	if survived == 0 {
		t.Error("nothing ever survived a crash: flushing does not work")
	}
}

// TestDamagedFiles damages each file in each of several ways. Whatever Open makes
// of it, what is read must be a state that was, and in the end the log can make
// the index whole.
func TestDamagedFiles(t *testing.T) {
	h := mkHistory(60, 3)
	want := h.states(t)
	src := vfs.NewMem()
	db := mustOpen(t, "idx", Options{FS: src, FlushSegments: 8})
	h.applyTo(t, db, 60)
	mustClose(t, db)
	files, err := src.List("idx/db")
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string]func([]byte) []byte{
		"emptied":   func(b []byte) []byte { return nil },
		"halved":    func(b []byte) []byte { return b[:len(b)/2] },
		"one short": func(b []byte) []byte { return b[:max(0, len(b)-1)] },
		"flipped": func(b []byte) []byte {
			b = bytes.Clone(b)
			for i := 0; i < len(b); i += 97 {
				b[i] ^= 0x40
			}
			return b
		},
		"zeroed":  func(b []byte) []byte { return make([]byte, len(b)) },
		"garbage": func(b []byte) []byte { return []byte("not what it was") },
		"removed": nil,
	}
	rebuilt := 0
	for _, name := range files {
		for how, damage := range damages {
			t.Run(name+" "+how, func(t *testing.T) {
				fs := vfs.NewMem()
				if ok, err := vfs.Clone(src, fs, "idx", "idx"); !ok || err != nil {
					t.Fatal(ok, err)
				}
				damageFile(t, fs, "idx/db/"+name, damage)
				if reopenUntilSound(t, fs, want) {
					rebuilt++
				}
				db := mustOpen(t, "idx", Options{FS: fs})
				defer mustClose(t, db)
				h.applyTo(t, db, 60)
				if mustDigest(t, db) != want[60] {
					t.Error("another state after the log was applied again")
				}
			})
		}
	}
	t.Logf("%d files, rebuilt %d times", len(files), rebuilt)
	if rebuilt == 0 {
		t.Error("no damage was ever noticed")
	}
}

func damageFile(t *testing.T, fs vfs.FS, name string, damage func([]byte) []byte) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, info.Size())
	if len(body) > 0 {
		if _, err := f.ReadAt(body, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Close(), fs.Remove(name)); err != nil {
		t.Fatal(err)
	}
	if damage == nil {
		return
	}
	out, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = out.Write(damage(body))
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
}

// reopenUntilSound opens the index and reads all of it; a CorruptError must be
// cured by opening it once more. It reports whether anything was rebuilt.
func reopenUntilSound(t *testing.T, fs vfs.FS, want [][32]byte) bool {
	t.Helper()
	for range 2 {
		db := mustOpen(t, "idx", Options{FS: fs})
		seq, _, _ := db.Position()
		got, err := db.Digest()
		closeErr := db.Close()
		if err == nil && closeErr == nil {
			if got != want[seq] {
				t.Fatalf("at %v with a state that never was", seq)
			}
			return seq == 0
		}
		var corrupt *CorruptError
		if err != nil && !errors.As(err, &corrupt) {
			t.Fatalf("reading it: %v, want a CorruptError", err)
		}
	}
	t.Fatal("still damaged after it was opened again")
	return false
}

func TestRebuildsWhatIsNotOurs(t *testing.T) {
	h := mkHistory(20, 4)
	mk := func(t *testing.T, fs vfs.FS) {
		db := mustOpen(t, "idx", Options{FS: fs})
		h.applyTo(t, db, 20)
		mustClose(t, db)
	}
	tests := map[string]func(t *testing.T, fs vfs.FS) wal.StoreID{
		"of another bucket": func(t *testing.T, fs vfs.FS) wal.StoreID { return wal.StoreID{2} },
		"of a newer format": func(t *testing.T, fs vfs.FS) wal.StoreID {
			db := mustOpen(t, "idx", Options{FS: fs})
			if err := db.current.Load().pebble.Set([]byte(storeKey), append(wal.AppendUint64(nil, indexFormat+1), testStore[:]...), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			mustClose(t, db)
			return testStore
		},
		"of a newer pebble": func(t *testing.T, fs vfs.FS) wal.StoreID {
			files, _ := fs.List("idx/db")
			for _, f := range files {
				if strings.HasPrefix(f, "marker.format-version.") {
					if err := fs.Rename("idx/db/"+f, "idx/db/marker.format-version.000999.999"); err != nil {
						t.Fatal(err)
					}
				}
			}
			return testStore
		},
		"without identity": func(t *testing.T, fs vfs.FS) wal.StoreID {
			db := mustOpen(t, "idx", Options{FS: fs})
			if err := db.current.Load().pebble.Delete([]byte(storeKey), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			mustClose(t, db)
			return testStore
		},
		"noted to be damaged": func(t *testing.T, fs vfs.FS) wal.StoreID {
			f, err := fs.Create("idx/"+rebuildTag, vfs.WriteCategoryUnspecified)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			return testStore
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			mk(t, fs)
			store := change(t, fs)
			for range 2 { // and the second time there is nothing to rebuild
				var log bytes.Buffer
				db, err := Open("idx", store, Options{FS: fs, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				if err != nil {
					t.Fatal(err)
				}
				seq, _, _ := db.Position()
				if _, ok, _ := db.Get([]byte("k01")); seq != 0 || ok {
					t.Fatalf("opened at %v, want an empty index", seq)
				}
				mustClose(t, db)
				lines := strings.Count(log.String(), "made again from the log")
				if want := 1; lines != want && log.Len() > 0 {
					t.Errorf("%d lines, want %d:\n%s", lines, want, log.String())
				}
				log.Reset()
				if files, err := fs.List("idx/" + asideDir); err != nil || len(files) == 0 {
					t.Errorf("nothing was moved aside: %v", err)
				}
			}
			if files, _ := fs.List("idx"); len(files) > 3 {
				t.Errorf("the directory has %v, want LOCK, db and one copy aside", files)
			}
		})
	}
}

// TestDamageFoundLater flips a byte that Open does not look at.
func TestDamageFoundLater(t *testing.T) {
	fs, r := vfs.NewMem(), rand.New(rand.NewPCG(1, 2))
	db := mustOpen(t, "idx", Options{FS: fs})
	seg := &wal.Segment{Store: testStore, Seq: 1}
	for i := range 200 {
		value := make([]byte, 10_000) // random, so that blocks stay large
		for j := range value {
			value[j] = byte(r.Uint32())
		}
		seg.Entries = append(seg.Entries, wal.Entry{Kind: wal.Set, Key: fmt.Appendf(nil, "k%03d", i), Value: value})
	}
	if err := db.Apply(seg, wal.Digest{1}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	files, _ := fs.List("idx/db")
	for _, f := range files {
		if strings.HasSuffix(f, ".sst") {
			damageFile(t, fs, "idx/db/"+f, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}
	}
	db = mustOpen(t, "idx", Options{FS: fs})
	var corrupt *CorruptError
	if _, err := db.Digest(); !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "start again") {
		t.Fatalf("reading: %v, want a CorruptError that says what to do", err)
	}
	if err := db.Apply(&wal.Segment{Store: testStore, Seq: 2}, wal.Digest{2}); !errors.As(err, &corrupt) {
		t.Errorf("Apply after it was noticed: %v, want a CorruptError", err)
	}
	_ = db.Close()
	db = mustOpen(t, "idx", Options{FS: fs})
	defer mustClose(t, db)
	if seq, _, _ := db.Position(); seq != 0 || db.Err() != nil {
		t.Errorf("opened again it is at %v, %v; want a new index", seq, db.Err())
	}
	if _, err := db.Digest(); err != nil {
		t.Error(err)
	}
}
