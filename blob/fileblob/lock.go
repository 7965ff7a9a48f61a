package fileblob

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// How long to wait before asking for a taken lock again, at first and at most.
// Holders keep it for one rename, so it is rarely taken twice.
const (
	lockWaitMin = 200 * time.Microsecond
	lockWaitMax = 20 * time.Millisecond
)

type lockMode int

const (
	shared    lockMode = syscall.LOCK_SH
	exclusive lockMode = syscall.LOCK_EX
)

// tryLock takes the lock if nobody is in the way. The lock belongs to the open
// file and ends when it is closed, at the latest with the process.
func tryLock(f *os.File, mode lockMode) (bool, error) {
	for {
		switch err := syscall.Flock(int(f.Fd()), int(mode)|syscall.LOCK_NB); {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, os.NewSyscallError("flock", err)
		}
	}
}

// withLock runs do while it holds ",lock". Swap takes it exclusively. What could
// come between its compare and its rename (Put, Delete) shares it. Create does
// not need it: it cannot replace anything.
//
// The wait is a poll and not a blocking flock, so that it ends with ctx even if
// another process was stopped while it held the lock.
func (b *Bucket) withLock(ctx context.Context, mode lockMode, do func() error) (err error) {
	if mode == exclusive {
		select {
		case b.swapping <- struct{}{}:
			defer func() { <-b.swapping }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f, err := b.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for wait := lockWaitMin; ; wait = min(2*wait, lockWaitMax) {
		locked, err := tryLock(f, mode)
		if err != nil {
			return err
		}
		if locked {
			return do()
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
