package fileblob_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/fileblob"
)

var errNoMount = errors.New("mounting is not allowed")

// TestSmallFileSystem fills a real file system and makes it read-only, if this
// machine lets us mount one.
func TestSmallFileSystem(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=small "+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		t.Fatalf("%s", out)
	}
	if err != nil {
		t.Skipf("no mounts here: %v %s", err, out)
	}
}

// smallChild runs in a mount namespace of its own.
func smallChild(dir string) error {
	if err := syscall.Mount("celler", dir, "tmpfs", 0, "size=1m"); err != nil {
		return errors.Join(errNoMount, err)
	}
	b, err := fileblob.Open(dir, fileblob.Options{})
	if err != nil {
		return err
	}
	if err := fill(b); err != nil {
		return err
	}
	if _, err := b.Put(context.Background(), "pack/1/1", make([]byte, 2<<20)); blob.KindOf(err) != blob.KindFull {
		return fmt.Errorf("a body larger than the disk: %w, want kind full", err)
	}
	if err := b.Close(); err != nil {
		return err
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return errors.Join(errNoMount, err)
	}
	return readOnly(dir)
}

// fill writes until there is no space.
func fill(b *fileblob.Bucket) error {
	ctx := context.Background()
	body := make([]byte, 100_000)
	for n := 0; ; n++ {
		if n > 100 {
			return fmt.Errorf("1 MiB took %d objects of %d bytes", n, len(body))
		}
		key := blob.Key(fmt.Sprintf("log/%03d", n))
		_, err := b.Create(ctx, key, body)
		if err == nil {
			continue
		}
		if blob.KindOf(err) != blob.KindFull || !strings.Contains(err.Error(), string(key)) {
			return fmt.Errorf("full disk: %w, want kind full and the key", err)
		}
		if _, _, err := b.Get(ctx, key); !errors.Is(err, blob.ErrNotExist) {
			return fmt.Errorf("%s after a full disk: %w, want absent", key, err)
		}
		// What the failed write took is free again: something smaller fits.
		if _, err := b.Create(ctx, key, body[:1000]); err != nil {
			return fmt.Errorf("small object on a nearly full disk: %w", err)
		}
		return b.Delete(ctx, "log/000", "log/001", "log/002")
	}
}

func readOnly(dir string) error {
	ctx := context.Background()
	b, err := fileblob.Open(dir, fileblob.Options{})
	if err != nil {
		return err
	}
	if _, _, err := b.Get(ctx, "log/004"); err != nil {
		return fmt.Errorf("read-only bucket: %w", err)
	}
	_, errCreate := b.Create(ctx, "log/new", nil)
	_, errPut := b.Put(ctx, "log/new", nil)
	_, errSwap := b.Swap(ctx, "log/004", `"x"`, nil)
	for _, err := range []error{errCreate, errPut, errSwap, b.Delete(ctx, "log/004")} {
		if blob.KindOf(err) != blob.KindReadOnly || blob.HintOf(err) == "" {
			return fmt.Errorf("write to a read-only bucket: %w, want kind read-only and a hint", err)
		}
	}
	return b.Close()
}
