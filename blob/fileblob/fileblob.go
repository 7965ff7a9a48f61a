package fileblob

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/celler/celler/blob"
)

const (
	tempDir  = ",tmp"
	lockFile = ",lock"

	// The log holds secret keys of caches: nobody else's business.
	fileMode = 0o600
	dirMode  = 0o700
)

// Options tunes a Bucket. The zero value works.
type Options struct {
	Logger *slog.Logger // default: discard
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Bucket is a blob.Bucket in a directory. Make one with Open.
type Bucket struct {
	dir      string
	root     *os.Root
	self     fs.FileInfo // of root: dir may come to name another directory, or none
	log      *slog.Logger
	readOnly error // why nothing can be written, or nil

	owner string        // begins the names of our temporary files
	lock  *os.File      // the locked ,tmp/<owner>.lock
	temps atomic.Uint64 // numbers our temporary files

	swapping chan struct{} // holds one value while a Swap of this process is between compare and rename

	mu     sync.Mutex // guards synced
	synced map[string]bool

	// step is called before each system call that changes the directory. Tests
	// make it fail, or kill the process in it.
	step func(name string) error
}

var _ blob.Bucket = (*Bucket)(nil)

// Open opens the directory as a bucket, makes it if only its last element is
// missing, and removes what killed processes left behind. A directory that
// cannot be written can still be read: writes then fail with blob.KindReadOnly.
//
// The caller must Close the bucket.
func Open(dir string, o Options) (*Bucket, error) {
	o = o.withDefaults()
	b := &Bucket{
		dir:      dir,
		log:      o.Logger,
		swapping: make(chan struct{}, 1),
		synced:   map[string]bool{".": true},
		step:     func(string) error { return nil },
	}
	if err := b.open(); err != nil {
		return nil, b.fail("open", "", err)
	}
	return b, nil
}

func (b *Bucket) open() error {
	abs, err := filepath.Abs(b.dir)
	if err != nil {
		return err
	}
	b.dir = abs
	switch err := os.Mkdir(abs, dirMode); {
	case err == nil:
		if err := syncPath(filepath.Dir(abs)); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		// Perhaps the parent is not ours to write but the directory is there.
		if _, statErr := os.Stat(abs); statErr != nil {
			return err
		}
	}
	if b.root, err = os.OpenRoot(abs); err != nil {
		return err
	}
	if b.self, err = b.root.Stat("."); err != nil {
		return errors.Join(err, b.Close())
	}
	err = b.claim()
	switch kindOf(err) {
	case blob.KindReadOnly, blob.KindDenied:
		b.readOnly = err
		b.log.Warn("bucket directory cannot be written", "err", err)
		return nil
	}
	if err == nil {
		err = b.sweep()
	}
	if err != nil {
		return errors.Join(err, b.Close())
	}
	return nil
}

func syncPath(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// claim makes this Bucket's owner name and takes its lock.
func (b *Bucket) claim() error {
	if err := b.root.Mkdir(tempDir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := b.root.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	for {
		var id [8]byte
		if _, err := rand.Read(id[:]); err != nil {
			return err
		}
		owner := hex.EncodeToString(id[:])
		f, err := b.root.OpenFile(tempDir+"/"+owner+lockSuffix, os.O_CREATE|os.O_EXCL|os.O_RDWR, fileMode)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		// Between creation and lock another Open may take the file for a dead
		// process's and remove it. Then this name is burnt.
		locked, err := tryLock(f, exclusive)
		if err != nil {
			return errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		if locked && b.isStill(f, tempDir+"/"+owner+lockSuffix) {
			b.owner, b.lock = owner, f
			return nil
		}
		_ = f.Close() // nothing was written to it
	}
}

// isStill reports whether the open file is the one that has the name.
func (b *Bucket) isStill(f *os.File, name string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := b.root.Lstat(name)
	return err == nil && os.SameFile(mine, there)
}

// Close gives back what the bucket holds open. Calls under way fail or finish.
func (b *Bucket) Close() error {
	var errs []error
	if b.lock != nil {
		errs = append(errs, b.removeOwner(b.owner), b.lock.Close())
		b.lock = nil
	}
	if b.root != nil {
		errs = append(errs, b.root.Close())
	}
	return errors.Join(errs...)
}

// String returns the directory.
func (b *Bucket) String() string { return b.dir }

// enter is what every call on keys begins with.
func (b *Bucket) enter(ctx context.Context, op string, keys ...blob.Key) error {
	for _, key := range keys {
		if err := key.Valid(); err != nil {
			return b.fail(op, key, err)
		}
	}
	if err := ctx.Err(); err != nil {
		var first blob.Key
		if len(keys) > 0 {
			first = keys[0]
		}
		return b.fail(op, first, err)
	}
	return nil
}

// enterWrite is enter for calls that change something.
func (b *Bucket) enterWrite(ctx context.Context, op string, keys ...blob.Key) error {
	if err := b.enter(ctx, op, keys...); err != nil {
		return err
	}
	if b.readOnly != nil {
		return b.fail(op, keys[0], b.readOnly)
	}
	if err := b.inPlace(); err != nil {
		return b.fail(op, keys[0], err)
	}
	return nil
}

// inPlace returns an error if the directory is not any more where it was opened. Others
// would not see what is written to it there.
func (b *Bucket) inPlace() error {
	there, err := os.Stat(b.dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && !os.SameFile(there, b.self) {
		return &movedError{b.dir}
	}
	return err
}
