package config_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/celler/celler/internal/config"
)

// What is replaced stays whose it was and as open as it was, unless it is to be private.
func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write := func(mode, want os.FileMode) {
		t.Helper()
		if err := config.WriteFile(path, []byte("body"), mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("mode %v, %v, want %v", info.Mode().Perm(), err, want)
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 && want != 0o640 && (!ok || owner.Uid != 12345 || owner.Gid != 12346) {
			t.Errorf("owner %d:%d", owner.Uid, owner.Gid)
		}
	}
	write(0o640, 0o640)
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, 12346); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	write(0o644, 0o604)
	write(0o600, 0o600)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	write(0o600, 0o400)
}
