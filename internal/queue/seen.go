package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Seen returns how far a watcher of the local store has come for a target: all paths
// that became valid before are in the queue, or were. Zero if none has ever watched.
func (q *Queue) Seen(t Target) (time.Time, error) {
	info, err := os.Stat(q.seen(t))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read how far the watcher came: %w", err)
	}
	return info.ModTime(), nil
}

// SetSeen records how far a watcher has come. It is not synced: what is lost by a power
// failure makes the next watcher look further back.
func (q *Queue) SetSeen(t Target, at time.Time) error {
	name := q.seen(t)
	if err := os.Mkdir(filepath.Dir(name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("record how far the watcher came: %w", err)
	}
	// A new file would say "now" until Chtimes; who reads that would miss something.
	err := os.Chtimes(name, at, at)
	if errors.Is(err, fs.ErrNotExist) {
		err = createdAt(name, at)
	}
	if err != nil {
		return fmt.Errorf("record how far the watcher came: %w", err)
	}
	return nil
}

func createdAt(name string, at time.Time) error {
	hidden := filepath.Join(filepath.Dir(name), "."+filepath.Base(name))
	if err := os.WriteFile(hidden, nil, 0o644); err != nil {
		return err
	}
	if err := os.Chtimes(hidden, at, at); err != nil {
		return err
	}
	return os.Rename(hidden, name)
}

func (q *Queue) seen(t Target) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %v %v", t.Cache, t.NoClosure, t.IgnoreUpstream))
	return filepath.Join(q.dir, "seen", hex.EncodeToString(sum[:16]))
}
