package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// LockedError reports a queue that another process works off.
type LockedError struct {
	Dir string
	PID string // as that process wrote it; perhaps ""
}

func (e *LockedError) Error() string {
	if e.PID == "" {
		return "another agent works off the queue in " + e.Dir
	}
	return fmt.Sprintf("another agent, process %s, works off the queue in %s", e.PID, e.Dir)
}

// Lock makes the caller the queue's agent until unlock is called or the process ends,
// however that comes. It does not wait: *LockedError if there is an agent.
func (q *Queue) Lock() (unlock func(), err error) {
	name := filepath.Join(q.dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock queue: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			pid, _ := readFile(name, 32)
			return nil, &LockedError{q.dir, strings.TrimSpace(string(pid))}
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	// For people only; on a full disk the lock holds without it.
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	return func() { _ = f.Close() }, nil
}

// PID is the process that has locked the queue, or was the last to; 0 if that is not known.
func (q *Queue) PID() int {
	text, err := readFile(filepath.Join(q.dir, "lock"), 32)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}
