package index

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// brokenDisk fails the operations that fails says so of, with errno, once on.
type brokenDisk struct {
	on    atomic.Bool
	errno syscall.Errno
	fails func(errorfs.Op) bool
}

func (d *brokenDisk) String() string { return d.errno.Error() }

func (d *brokenDisk) MaybeError(op errorfs.Op) error {
	if d.on.Load() && d.fails(op) {
		return &os.PathError{Op: "write", Path: op.Path, Err: d.errno}
	}
	return nil
}

func TestDiskFullWhileRunning(t *testing.T) {
	disk := &brokenDisk{errno: syscall.ENOSPC, fails: func(op errorfs.Op) bool {
		return strings.HasSuffix(op.Path, ".sst") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite
	}}
	var log bytes.Buffer
	mem := vfs.NewMem()
	db := mustOpen(t, "idx", Options{FS: errorfs.Wrap(mem, disk), FlushSegments: 4, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	h := mkHistory(400, 6)
	h.applyTo(t, db, 10)
	disk.on.Store(true)
	var err error
	for i := 10; i < 400 && err == nil; i++ {
		if err = db.Apply(h.segments[i], h.digests[i+1]); i%4 == 3 && err == nil {
			<-orTimeout(t, db.failedCh)
		}
	}
	var full *DiskError
	if !errors.As(err, &full) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the bucket is untouched") || !strings.Contains(err.Error(), "free some space") {
		t.Fatalf("Apply: %v, want a DiskError that says what to do", err)
	}
	if _, _, err := db.Get([]byte("k01")); err != nil {
		t.Errorf("reading: %v, want it to go on", err)
	}
	_ = db.Close()
	if n := strings.Count(log.String(), "can take no more segments"); n != 1 {
		t.Errorf("said %d times, want once:\n%.2000s", n, log.String())
	}
	db = mustOpen(t, "idx", Options{FS: mem})
	defer mustClose(t, db)
	h.applyTo(t, db, 400)
}

// orTimeout gives a flush the time to fail.
func orTimeout(t *testing.T, ch <-chan struct{}) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		timer := time.NewTimer(10 * time.Second)
		defer timer.Stop()
		select {
		case <-ch:
		case <-timer.C:
		}
	}()
	return done
}

func TestDiskFailsAtOpen(t *testing.T) {
	for _, c := range []struct {
		errno  syscall.Errno
		within string // what the disk refuses to write
	}{{syscall.ENOSPC, ""}, {syscall.ENOSPC, "idx/db/"}, {syscall.EROFS, ""}, {syscall.EROFS, "idx/db/"}, {syscall.EACCES, ""}, {syscall.EIO, "idx/db/"}} {
		t.Run(c.errno.Error()+" "+c.within, func(t *testing.T) {
			errno := c.errno
			mem := vfs.NewMem()
			h := mkHistory(10, 8)
			db := mustOpen(t, "idx", Options{FS: mem})
			h.applyTo(t, db, 10)
			mustClose(t, db)
			disk := &brokenDisk{errno: errno, fails: func(op errorfs.Op) bool {
				return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.HasPrefix(op.Path, c.within)
			}}
			disk.on.Store(true)
			_, err := Open("idx", testStore, Options{FS: errorfs.Wrap(mem, disk)})
			var diskErr *DiskError
			if !errors.As(err, &diskErr) || !errors.Is(err, errno) || !strings.Contains(err.Error(), "the bucket is untouched") {
				t.Fatalf("Open: %v, want a DiskError", err)
			}
			db = mustOpen(t, "idx", Options{FS: mem}) // and nothing was thrown away
			defer mustClose(t, db)
			if seq, _, _ := db.Position(); seq != 10 {
				t.Errorf("afterwards it is at %v, want 10", seq)
			}
		})
	}
}

// A full disk often makes files and takes no byte. Pebble panics on that.
func TestDiskTakesNoByteAtOpen(t *testing.T) {
	disk := &brokenDisk{errno: syscall.ENOSPC, fails: func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite }}
	disk.on.Store(true)
	var log bytes.Buffer
	_, err := Open("idx", testStore, Options{FS: errorfs.Wrap(vfs.NewMem(), disk), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	var full *DiskError
	if !errors.As(err, &full) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Open: %v, want a DiskError", err)
	}
	if text := err.Error(); strings.Contains(text, "panic") || strings.Count(text, "the bucket is untouched") != 1 || !strings.Contains(text, "free some space") {
		t.Errorf("Open: %v; want it said once, and what to do", text)
	}
	if strings.Contains(log.String(), "moved aside") {
		t.Errorf("the log says that an index is made again because the disk is full:\n%s", log.String())
	}
}
