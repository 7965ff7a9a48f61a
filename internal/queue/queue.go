package queue

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// abandonedAfter is when a file that was being written is nobody's any more.
const abandonedAfter = time.Hour

// ErrGone means that an entry is not in the queue any more.
var ErrGone = errors.New("entry is gone")

// DamagedError reports an entry that cannot be read.
type DamagedError struct {
	Path string // of the file
	Err  error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("queue entry %s: %v", e.Path, e.Err) }

// Unwrap returns what is wrong with it.
func (e *DamagedError) Unwrap() error { return e.Err }

// UnsafeError reports a directory that others could write to.
type UnsafeError struct {
	Dir  string
	Mode fs.FileMode
}

func (e *UnsafeError) Error() string {
	return fmt.Sprintf("open queue %s: its mode is %04o, expected one that lets nobody write but its owner", e.Dir, e.Mode.Perm())
}

// ID names an entry. IDs sort by the time at which their entries were queued.
type ID string

// A Queue is a directory of entries.
type Queue struct {
	dir  string
	disk disk
}

// Open opens the queue in dir, and makes the directory if there is none.
func Open(dir string) (*Queue, error) {
	q := &Queue{dir: dir, disk: realDisk()}
	if err := q.make(); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, &UnsafeError{dir, info.Mode()}
	}
	if info, err = os.Lstat(q.entries()); err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: q.entries(), Err: syscall.ENOTDIR}
	}
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, &UnsafeError{q.entries(), info.Mode()}
	}
	return q, nil
}

// Exists reports whether there is a queue in dir. An error other than that it is not
// there counts as a yes: opening it will say more.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "entries"))
	return !errors.Is(err, fs.ErrNotExist)
}

// make makes the directory, and sees to it that a power failure does not take it away
// with all that is in it.
func (q *Queue) make() error {
	if Exists(q.dir) {
		return nil
	}
	var created []string // their parents must be synced
	for dir := filepath.Clean(q.dir); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		created = append(created, dir)
	}
	if err := os.MkdirAll(q.dir, 0o700); err != nil {
		return err
	}
	switch err := os.Mkdir(q.entries(), 0o700); {
	case err == nil:
		if err := q.handOver(); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	for _, dir := range append(created, q.entries()) {
		if err := q.disk.syncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// handOver gives what was just made to the directory's owner: a hook of root's may come
// before the agent, which may be another user. That user must not be given anything else, and
// may have put a link in its place by now.
func (q *Queue) handOver() error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(q.dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	f, err := os.OpenFile(q.entries(), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

// Dir is the queue's directory.
func (q *Queue) Dir() string { return q.dir }

// Socket is where the queue's agent listens.
func (q *Queue) Socket() string { return filepath.Join(q.dir, "agent.sock") }

func (q *Queue) entries() string         { return filepath.Join(q.dir, "entries") }
func (q *Queue) file(name string) string { return filepath.Join(q.entries(), name) }

// Add puts an entry into the queue, durably; see the package comment.
func (q *Queue) Add(e Entry) (ID, error) {
	id, err := q.add(e)
	if err != nil {
		return "", fmt.Errorf("queue in %s: %w", q.dir, err)
	}
	return id, nil
}

func (q *Queue) add(e Entry) (_ ID, err error) {
	if err := e.check(); err != nil {
		return "", err
	}
	text := AppendEntry(nil, e)
	if len(text) > maxEntryBytes {
		return "", fmt.Errorf("an entry of %d bytes, at most %d", len(text), maxEntryBytes)
	}
	name := newID(e.Queued)
	hidden := q.file("." + string(name))
	f, err := q.disk.create(hidden)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = q.disk.remove(hidden) // on a disk that is full, of all things
		}
	}()
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return "", err
	}
	if err := q.disk.rename(hidden, q.file(string(name))); err != nil {
		return "", err
	}
	if err := q.disk.syncDir(q.entries()); err != nil {
		return "", fmt.Errorf("make the entry durable: %w", err)
	}
	return name, nil
}

func newID(at time.Time) ID {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return ID(fmt.Sprintf("%016x-%016x", uint64(at.UnixNano()), binary.BigEndian.Uint64(random[:])))
}

// IDs lists the entries, the oldest first.
func (q *Queue) IDs() ([]ID, error) {
	names, err := q.disk.readNames(q.entries())
	if err != nil {
		return nil, fmt.Errorf("list queue: %w", err)
	}
	ids := make([]ID, 0, len(names))
	for _, name := range names {
		if !strings.HasPrefix(name, ".") {
			ids = append(ids, ID(name))
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Changed says when an entry was last added or removed. It may tell the same for two
// changes that follow each other closely.
func (q *Queue) Changed() (time.Time, error) {
	info, err := os.Stat(q.entries())
	if err != nil {
		return time.Time{}, fmt.Errorf("look at queue: %w", err)
	}
	return info.ModTime(), nil
}

// Read reads an entry: ErrGone if it is not there, a *DamagedError if it is there but
// makes no sense.
func (q *Queue) Read(id ID) (Entry, error) {
	name := q.file(string(id))
	text, err := q.disk.readFile(name, maxEntryBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Entry{}, ErrGone
	case errors.Is(err, fs.ErrInvalid):
		return Entry{}, &DamagedError{name, errors.New("it is no regular file")}
	case err != nil:
		return Entry{}, fmt.Errorf("read queue entry: %w", err)
	}
	e, err := DecodeEntry(text)
	if err != nil {
		return Entry{}, &DamagedError{name, err}
	}
	return e, nil
}

// Remove removes entries. That one is not there is no error.
func (q *Queue) Remove(ids ...ID) error {
	for _, id := range ids {
		if err := q.disk.remove(q.file(string(id))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove queue entry: %w", err)
		}
	}
	return nil
}

// SetAside moves an entry that cannot be read out of the way, and returns where it is
// then.
func (q *Queue) SetAside(id ID) (string, error) {
	dir := filepath.Join(q.dir, "damaged")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("set queue entry aside: %w", err)
	}
	to := filepath.Join(dir, string(id))
	if err := q.disk.rename(q.file(string(id)), to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("set queue entry aside: %w", err)
	}
	return to, nil
}

// Damaged is how many entries were set aside, and not removed since.
func (q *Queue) Damaged() (int, error) {
	names, err := q.disk.readNames(filepath.Join(q.dir, "damaged"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("count damaged queue entries: %w", err)
	}
	return len(names), nil
}

// Tidy removes what writers left that did not come to an end.
func (q *Queue) Tidy(now time.Time) error {
	names, err := q.disk.readNames(q.entries())
	if err != nil {
		return fmt.Errorf("tidy queue: %w", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, ".") {
			continue
		}
		info, err := os.Lstat(q.file(name))
		if err != nil || now.Sub(info.ModTime()) < abandonedAfter {
			continue
		}
		if err := q.disk.remove(q.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("tidy queue: %w", err)
		}
	}
	return nil
}
