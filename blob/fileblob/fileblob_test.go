package fileblob_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/fileblob"
)

func open(t testing.TB, dir string) *fileblob.Bucket {
	t.Helper()
	b, err := fileblob.Open(dir, fileblob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func TestBucket(t *testing.T) {
	blobtest.Run(t, func(t testing.TB) blob.Bucket { return open(t, t.TempDir()) })
}

// TestFullDiskAtEveryStep lets each system call of each write fail in turn.
// Whatever was not acknowledged is absent or whole, and no temporary file stays.
func TestFullDiskAtEveryStep(t *testing.T) {
	writes := map[string]func(ctx context.Context, b *fileblob.Bucket, tag blob.Tag) error{
		"create": func(ctx context.Context, b *fileblob.Bucket, _ blob.Tag) error {
			_, err := b.Create(ctx, "log/deep/1", []byte("new"))
			return err
		},
		"put": func(ctx context.Context, b *fileblob.Bucket, _ blob.Tag) error {
			_, err := b.Put(ctx, "log/deep/1", []byte("new"))
			return err
		},
		"swap": func(ctx context.Context, b *fileblob.Bucket, tag blob.Tag) error {
			_, err := b.Swap(ctx, "ROOT", tag, []byte("new"))
			return err
		},
		"delete": func(ctx context.Context, b *fileblob.Bucket, _ blob.Tag) error {
			return b.Delete(ctx, "ROOT")
		},
	}
	for name, write := range writes {
		t.Run(name, func(t *testing.T) {
			for k := 0; ; k++ {
				dir := t.TempDir()
				b := open(t, dir)
				tag, err := b.Create(t.Context(), "ROOT", []byte("old"))
				if err != nil {
					t.Fatal(err)
				}
				n, at := 0, ""
				b.SetStep(func(step string) error {
					if n++; n-1 == k {
						at = step
						return syscall.ENOSPC
					}
					return nil
				})
				err = write(t.Context(), b, tag)
				b.SetStep(func(string) error { return nil })
				if at == "" {
					if err != nil {
						t.Errorf("without any fault: %v", err)
					}
					if k < 2 {
						t.Errorf("only %d steps", k)
					}
					return
				}
				if err == nil || blob.KindOf(err) != blob.KindFull || blob.HintOf(err) == "" {
					t.Errorf("full disk at %s: %v, want an error of kind full with a hint", at, err)
				}
				wantWholeOrAbsent(t, b, at)
				wantTemps(t, dir, 1)
				if err := retry(t.Context(), b, write); err != nil {
					t.Errorf("after a full disk at %s: %v", at, err)
				}
			}
		})
	}
}

// TestOrderOfSteps pins what a power cut would punish and no test can: a body
// is synced before it gets its name, every directory after it got an entry.
func TestOrderOfSteps(t *testing.T) {
	b := open(t, t.TempDir())
	var steps []string
	b.SetStep(func(step string) error { steps = append(steps, step); return nil })
	want := func(what string, err error, want ...string) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff(want, steps); diff != "" {
			t.Errorf("steps of %s (-want +got):\n%s", what, diff)
		}
		steps = nil
	}
	written := []string{"create temp", "write temp", "sync temp"}
	ctx := t.Context()

	_, err := b.Create(ctx, "a/b/1", []byte("x"))
	want("create in new directories", err, slices.Concat(written, []string{"mkdir", "sync dir", "mkdir", "sync dir", "link", "sync dir"})...)
	_, err = b.Create(ctx, "a/b/2", []byte("x"))
	want("create", err, slices.Concat(written, []string{"link", "sync dir"})...)
	_, err = b.Put(ctx, "a/b/3", []byte("x"))
	want("put", err, slices.Concat(written, []string{"rename", "sync dir"})...)
	_, tag, err := b.Get(ctx, "a/b/3")
	want("get", err)
	_, err = b.Swap(ctx, "a/b/3", tag, []byte("y"))
	want("swap", err, slices.Concat(written, []string{"rename", "sync dir"})...)
	want("delete", b.Delete(ctx, "a/b/1", "a/b/2"), "unlink", "unlink", "sync dir")
	if _, err := b.Create(ctx, "a/b/3", nil); !errors.Is(err, blob.ErrExist) {
		t.Error(err)
	}
	want("create of an occupied key", nil)

	// Another process has the directory from us, and cannot know whether it is durable.
	other := open(t, b.String())
	other.SetStep(func(step string) error { steps = append(steps, step); return nil })
	_, err = other.Create(ctx, "a/b/4", nil)
	want("create in directories somebody else made", err, slices.Concat(written, []string{"mkdir", "sync dir", "mkdir", "sync dir", "link", "sync dir"})...)
}

// retry does the write again, as a caller who now knows the outcome would.
func retry(ctx context.Context, b *fileblob.Bucket, write func(context.Context, *fileblob.Bucket, blob.Tag) error) error {
	_, tag, err := b.Get(ctx, "ROOT")
	if err != nil && !errors.Is(err, blob.ErrNotExist) {
		return err
	}
	if err := write(ctx, b, tag); !errors.Is(err, blob.ErrExist) {
		return err
	}
	return nil
}

func wantWholeOrAbsent(t *testing.T, b *fileblob.Bucket, at string) {
	t.Helper()
	for key, want := range map[blob.Key]string{"log/deep/1": "new", "ROOT": "old new"} {
		body, _, err := b.Get(t.Context(), key)
		if errors.Is(err, blob.ErrNotExist) {
			continue
		}
		if err != nil || !strings.Contains(want, string(body)) || len(body) != 3 {
			t.Errorf("full disk at %s: %s holds %q (%v)", at, key, body, err)
		}
	}
}

func wantTemps(t *testing.T, dir string, want int) {
	t.Helper()
	temps, err := os.ReadDir(filepath.Join(dir, ",tmp"))
	if err != nil {
		t.Fatal(err)
	}
	if len(temps) != want {
		t.Errorf("%d files in ,tmp, want %d: %v", len(temps), want, temps)
	}
}

// TestSweepSparesTheLiving opens a bucket beside one that is in the middle of a write.
func TestSweepSparesTheLiving(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	first.SetStep(func(step string) error {
		if step == "link" {
			open(t, dir) // sweeps
			wantTemps(t, dir, 3)
		}
		return nil
	})
	if _, err := first.Create(t.Context(), "log/1", []byte("x")); err != nil {
		t.Errorf("the body was swept away: %v", err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	b, err := fileblob.Open(dir, fileblob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(t.Context(), "log/1", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	wantTemps(t, dir, 0)
	if _, err := b.Create(t.Context(), "log/2", []byte("x")); err == nil {
		t.Error("a closed bucket took an object")
	}
}

func TestKeyAndDirectory(t *testing.T) {
	b := open(t, t.TempDir())
	if _, err := b.Create(t.Context(), "a/b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, key := range []blob.Key{"a", "a/b/c", "a/b/c/d"} {
		_, err := b.Create(t.Context(), key, []byte("y"))
		if err == nil || errors.Is(err, blob.ErrExist) || !strings.Contains(err.Error(), "cannot be the directory of") {
			t.Errorf("create %s beside a/b: %v", key, err)
		}
		if _, err := b.Put(t.Context(), key, []byte("y")); err == nil || !strings.Contains(err.Error(), "cannot be the directory of") {
			t.Errorf("put %s beside a/b: %v", key, err)
		}
	}
	if body, _, err := b.Get(t.Context(), "a/b"); err != nil || string(body) != "x" {
		t.Errorf("a/b holds %q (%v)", body, err)
	}
}

// TestNoKeyLeadsOutside plants links that lead out of the bucket.
func TestNoKeyLeadsOutside(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.Symlink(outside, filepath.Join(dir, "log")),
		os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "ROOT")),
	); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir)
	for _, key := range []blob.Key{"log/secret", "ROOT"} {
		if body, _, err := b.Get(t.Context(), key); err == nil {
			t.Errorf("get %s: %q", key, body)
		}
	}
	if _, err := b.Create(t.Context(), "log/1", []byte("x")); err == nil {
		t.Error("an object was created outside")
	}
	if _, err := b.Put(t.Context(), "log/secret", []byte("x")); err == nil {
		t.Error("an object was written outside")
	}
	if err := b.Delete(t.Context(), "log/secret"); err != nil {
		t.Logf("delete: %v", err)
	}
	if names, err := os.ReadDir(outside); err != nil || len(names) != 1 {
		t.Errorf("outside there is %v (%v), want one file", names, err)
	}
}

// TestDirectoryRemovedBehindOurBack removes a directory the bucket thinks it knows.
func TestDirectoryRemovedBehindOurBack(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	for range 2 {
		if _, err := b.Create(t.Context(), "log/a/1", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "log")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDirectoryMovedAway: what is written to a directory that was moved away would be
// seen by nobody who opens the path anew.
func TestDirectoryMovedAway(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	dir := filepath.Join(disk, "bucket")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir)
	ctx := t.Context()
	tag, err := b.Create(ctx, "ROOT", []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(when string) {
		t.Helper()
		_, create := b.Create(ctx, "log/1", []byte("x"))
		_, put := b.Put(ctx, "pack/1", []byte("x"))
		_, swap := b.Swap(ctx, "ROOT", tag, []byte("new"))
		_, _, get := b.Get(ctx, "log/1")
		_, get2 := b.GetRange(ctx, "log/1", 0, 1)
		for op, err := range map[string]error{"create": create, "put": put, "swap": swap, "delete": b.Delete(ctx, "ROOT"), "get": get, "get_range": get2} {
			if blob.KindOf(err) != blob.KindNoBucket || errors.Is(err, blob.ErrNotExist) || !strings.Contains(err.Error(), "is not the one that was opened") || blob.HintOf(err) == "" {
				t.Errorf("%s of a directory that was %s: %v", op, when, err)
			}
		}
	}
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	refused("moved away")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	refused("replaced")
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".gone", dir), os.Rename(disk, disk+".gone"), os.WriteFile(disk, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	refused("moved with the one it is in, which is a file now")
	if err := errors.Join(os.Remove(disk), os.Rename(disk+".gone", disk)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Swap(ctx, "ROOT", tag, []byte("new")); err != nil {
		t.Errorf("after it was put back: %v", err)
	}
	if _, _, err := b.Get(ctx, "log/1"); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("get of what is not there, after it was put back: %v", err)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	open(t, filepath.Join(dir, "new"))
	_, err := fileblob.Open(filepath.Join(dir, "missing", "new"), fileblob.Options{})
	if blob.KindOf(err) != blob.KindNoBucket || blob.HintOf(err) == "" {
		t.Errorf("open below a missing directory: %v, want kind no-bucket with a hint", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := fileblob.Open(file, fileblob.Options{}); err == nil {
		b.Close()
		t.Error("a file was opened as a bucket")
	}
}

// TestStoppedHolder keeps the lock taken, as a stopped process would.
func TestStoppedHolder(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	tag, err := b.Create(t.Context(), "ROOT", []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ",lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Swap(ctx, "ROOT", tag, []byte("new")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("swap while another process holds the lock: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Swap(t.Context(), "ROOT", tag, []byte("new")); err != nil {
		t.Errorf("swap after it let go: %v", err)
	}
}

func BenchmarkCreate(b *testing.B) {
	bucket := open(b, b.TempDir())
	body := make([]byte, 1000)
	n := 0
	for b.Loop() {
		n++
		if _, err := bucket.Create(b.Context(), blob.Key(fmt.Sprintf("log/%016x", n)), body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSwap(b *testing.B) {
	bucket := open(b, b.TempDir())
	tag, err := bucket.Create(b.Context(), "ROOT", []byte("0"))
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		n++
		if tag, err = bucket.Swap(b.Context(), "ROOT", tag, fmt.Appendf(nil, "%d", n)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut8MiB(b *testing.B) {
	bucket := open(b, b.TempDir())
	body := make([]byte, 8<<20)
	b.SetBytes(int64(len(body)))
	n := 0
	for b.Loop() {
		n++
		if _, err := bucket.Put(b.Context(), blob.Key(fmt.Sprintf("pack/%d", n%4)), body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	bucket := open(b, b.TempDir())
	if _, err := bucket.Create(b.Context(), "log/1", make([]byte, 1000)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := bucket.Get(b.Context(), "log/1"); err != nil {
			b.Fatal(err)
		}
	}
}
