package chunkstore_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

// openKind opens a NAR, reads it and says whether it was a resident copy.
func openKind(t *testing.T, s *chunkstore.Store, r *chunk.Recipe) (served []byte, resident bool) {
	t.Helper()
	rd, err := s.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	served, err = io.ReadAll(rd)
	if err != nil {
		t.Fatal(err)
	}
	_, resident = rd.(*os.File)
	return served, resident
}

func wantFiles(t *testing.T, dir string, want int) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != want {
		t.Fatalf("%d files in the directory of resident copies, want %d: %v", len(files), want, files)
	}
	return files
}

func TestResidentAfterPull(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	nar, recipe := mkGenerations(t, mem, d)
	dir := t.TempDir()
	count := blobtest.Count(mem)
	s := mkStore(t, count, d, chunkstore.Options{Dir: dir})
	want, resident := openKind(t, s, &recipe)
	if resident {
		t.Fatal("a copy is there before the first pull")
	}
	wantFiles(t, dir, 1)
	count.Reset()
	got, resident := openKind(t, s, &recipe)
	if !resident || !bytes.Equal(got, want) || count.Total() != 0 {
		t.Errorf("second pull: resident %v, %d requests", resident, count.Total())
	}
	wantServed(t, s, &recipe, nar)

	// After a restart it is found again, if its content is what its name says.
	s.Close()
	s = mkStore(t, count, d, chunkstore.Options{Dir: dir})
	if got, resident := openKind(t, s, &recipe); !resident || !bytes.Equal(got, want) {
		t.Error("not found again after a restart")
	}
	s.Close()
	file := wantFiles(t, dir, 1)[0]
	damaged := bytes.Clone(want)
	damaged[len(damaged)/2]++
	for name, content := range map[string][]byte{"damaged": damaged, "cut short": want[:len(want)-1], "zeros": make([]byte, len(want))} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s = mkStore(t, count, d, chunkstore.Options{Dir: dir})
		if got, resident := openKind(t, s, &recipe); resident || !bytes.Equal(got, want) {
			t.Errorf("%s copy: resident %v", name, resident)
		}
		wantFiles(t, dir, 1) // that of the pull just now
		s.Close()
	}

	// Deleted by somebody else at any moment.
	s = mkStore(t, count, d, chunkstore.Options{Dir: dir})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got, resident := openKind(t, s, &recipe); resident || !bytes.Equal(got, want) {
		t.Errorf("deleted copy: resident %v", resident)
	}
	if _, resident := openKind(t, s, &recipe); !resident {
		t.Error("not made again after it was deleted")
	}
}

func TestResidentAfterPush(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	s := mkStore(t, mem, d, chunkstore.Options{Dir: t.TempDir()})
	nar := text(1, 500_000)
	res := mustWrite(t, s, d, nar)
	if _, resident := openKind(t, s, &res.Recipe); !resident {
		t.Error("all data was new, and there is no copy")
	}
	wantServed(t, s, &res.Recipe, nar)
}

// TestResidentPartial checks that nothing but a whole pull makes a copy.
func TestResidentPartial(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	_, recipe := mkGenerations(t, mem, d)
	dir := t.TempDir()
	s := mkStore(t, mem, d, chunkstore.Options{Dir: dir})
	for _, read := range []func(rd io.ReadSeekCloser){
		func(rd io.ReadSeekCloser) { io.CopyN(io.Discard, rd, recipe.Served.Size-1) },
		func(rd io.ReadSeekCloser) { rd.Seek(1, io.SeekStart); io.Copy(io.Discard, rd) },
		func(rd io.ReadSeekCloser) {
			io.CopyN(io.Discard, rd, 5000)
			rd.Seek(100, io.SeekCurrent)
			io.Copy(io.Discard, rd)
		},
		func(rd io.ReadSeekCloser) { rd.Seek(0, io.SeekEnd) },
	} {
		rd, err := s.Open(t.Context(), &recipe)
		if err != nil {
			t.Fatal(err)
		}
		read(rd)
		rd.Close()
		wantFiles(t, dir, 0)
	}
}

func TestResidentEviction(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	dir := t.TempDir()
	s := mkStore(t, mem, d, chunkstore.Options{Dir: dir, ResidentBytes: 200_000})
	var recipes []chunk.Recipe
	for i := range uint64(4) {
		res := mustWrite(t, s, d, text(i, 120_000))
		recipes = append(recipes, res.Recipe)
		openKind(t, s, &recipes[0]) // used all the time
	}
	var total int64
	for _, f := range wantFiles(t, dir, 3) {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 200_000 {
		t.Errorf("copies have %d bytes, want at most 200000", total)
	}
	for i, want := range []bool{true, false, true, true} {
		rd, err := s.Open(t.Context(), &recipes[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, resident := rd.(*os.File); resident != want {
			t.Errorf("copy %d: resident %v, want %v", i, resident, want)
		}
		rd.Close()
	}
	// One that would push out all others is not kept.
	mustWrite(t, s, d, text(99, 400_000))
	wantFiles(t, dir, 3)
}

// TestResidentTinyCopies: a file takes up whole blocks. Copies of tiny NARs, counted by
// their bytes, would fill many times the disk they were given.
func TestResidentTinyCopies(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	dir := t.TempDir()
	s := mkStore(t, mem, d, chunkstore.Options{Dir: dir, ResidentBytes: 20 * 4096})
	for i := range uint64(30) {
		mustWrite(t, s, d, text(i, 500))
	}
	wantFiles(t, dir, 20)
	s.Close()
	mkStore(t, mem, d, chunkstore.Options{Dir: dir, ResidentBytes: 10 * 4096})
	wantFiles(t, dir, 10)
}

// TestResidentUnfinished counts the copies that are being written: many pulls at
// once must not fill the disk, which is also that of the index.
func TestResidentUnfinished(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	dir := t.TempDir()
	const most = 1 << 20
	push := mkStore(t, mem, d, chunkstore.Options{})
	s := mkStore(t, mem, d, chunkstore.Options{Dir: dir, ResidentBytes: most})
	used := func() (total int64) {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil {
				t.Fatal(err)
			}
			total += info.Size()
		}
		return total
	}
	// Whole copies that fill half of it.
	for i := range uint64(2) {
		mustWrite(t, s, d, text(100+i, 350_000))
	}
	var readers []io.ReadCloser
	for i := range uint64(10) {
		res := mustWrite(t, push, d, text(i, 350_000))
		rd, err := s.Open(t.Context(), &res.Recipe)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, rd, res.Recipe.Served.Size-1); err != nil {
			t.Fatal(err)
		}
		readers = append(readers, rd)
		if got := used(); got > most {
			t.Fatalf("with %d pulls under way the copies take %d bytes, want at most %d", len(readers), got, most)
		}
	}
	for _, rd := range readers {
		if _, err := io.Copy(io.Discard, rd); err != nil {
			t.Error(err)
		}
		rd.Close()
	}
	if got := used(); got > most || got < most/4 {
		t.Errorf("copies take %d bytes, want some and at most %d", got, most)
	}
	// What was reserved for the unfinished ones is free again.
	res := mustWrite(t, s, d, text(200, 350_000))
	if _, resident := openKind(t, s, &res.Recipe); !resident {
		t.Error("no copy after the pulls have ended")
	}
}
