package queue

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mustOpen(t *testing.T) *Queue {
	t.Helper()
	q, err := Open(filepath.Join(t.TempDir(), "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func mustAdd(t *testing.T, q *Queue, e Entry) ID {
	t.Helper()
	id, err := q.Add(e)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestAddReadRemove(t *testing.T) {
	q := mustOpen(t)
	e := mkEntry(t)
	later := mustAdd(t, q, e)
	e.Queued = e.Queued.Add(-time.Minute)
	earlier := mustAdd(t, q, e)
	ids, err := q.IDs()
	if diff := cmp.Diff([]ID{earlier, later}, ids); diff != "" || err != nil {
		t.Fatalf("IDs: %v (-want +got):\n%s", err, diff)
	}
	got, err := q.Read(earlier)
	if diff := cmp.Diff(e, got, cmp.Comparer(samePath)); diff != "" || err != nil {
		t.Errorf("Read: %v (-want +got):\n%s", err, diff)
	}
	if err := q.Remove(earlier, earlier); err != nil {
		t.Errorf("remove twice: %v", err)
	}
	if _, err := q.Read(earlier); !errors.Is(err, ErrGone) {
		t.Errorf("read what was removed: %v, want ErrGone", err)
	}
	// A second Queue on the same directory sees the same.
	again, err := Open(q.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if ids, err := again.IDs(); err != nil || len(ids) != 1 || ids[0] != later {
		t.Errorf("opened again: %v %v", ids, err)
	}
}

// One damaged entry costs itself and no other, wherever the damage is.
func TestDamagedEntryBlocksNothing(t *testing.T) {
	q := mustOpen(t)
	e := mkEntry(t)
	good := mustAdd(t, q, e)
	e.Queued = e.Queued.Add(-time.Second)
	bad := mustAdd(t, q, e)
	name := q.file(string(bad))
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range text {
		for _, damaged := range [][]byte{text[:cut], append(append([]byte(nil), text[:cut]...), make([]byte, len(text)-cut)...)} {
			if err := os.WriteFile(name, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := q.Read(bad); err == nil {
				t.Fatalf("an entry damaged at byte %d was read", cut)
			} else if _, ok := errors.AsType[*DamagedError](err); !ok {
				t.Fatalf("damaged at byte %d: %v, want a DamagedError", cut, err)
			}
			if _, err := q.Read(good); err != nil {
				t.Fatalf("damage in another entry: %v", err)
			}
		}
	}
	damaged := func(want int) {
		t.Helper()
		if n, err := q.Damaged(); err != nil || n != want {
			t.Errorf("%d entries were set aside, %v; want %d", n, err, want)
		}
	}
	damaged(0)
	where, err := q.SetAside(bad)
	if err != nil {
		t.Fatal(err)
	}
	damaged(1)
	if _, err := os.Stat(where); err != nil {
		t.Errorf("what was set aside is not there: %v", err)
	}
	if ids, _ := q.IDs(); len(ids) != 1 || ids[0] != good {
		t.Errorf("left in the queue: %v", ids)
	}
	// A directory with the name of an entry is damage too, and can be set aside.
	if err := os.Mkdir(q.file("0-0"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Read("0-0"); err == nil {
		t.Error("a directory was read")
	}
	if _, err := q.SetAside("0-0"); err != nil {
		t.Error(err)
	}
	damaged(2)
}

func TestUnsafeDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir)
	if unsafe, ok := errors.AsType[*UnsafeError](err); !ok || unsafe.Dir != dir {
		t.Errorf("opened a directory of everybody: %v", err)
	}
}

// What root makes in a directory of another user's is that user's.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		return // only root can make it so
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 12345, 12346); err != nil {
		t.Fatal(err)
	}
	q, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(q.entries())
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 12345 || stat.Gid != 12346 {
		t.Errorf("the entries belong to %d:%d, want 12345:12346", stat.Uid, stat.Gid)
	}
}

// Entries that are a link, to a directory of others or to none, would have root write and
// give away what is not the queue's.
func TestEntriesAreALink(t *testing.T) {
	for _, there := range []bool{true, false} {
		dir, target := t.TempDir(), filepath.Join(t.TempDir(), "target")
		if there {
			if err := os.Mkdir(target, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(dir, 12345, 12346); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(target, filepath.Join(dir, "entries")); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil {
			t.Errorf("target is there: %v; opened a queue whose entries are elsewhere", there)
		}
		if err := (&Queue{dir: dir, disk: realDisk()}).handOver(); err == nil && os.Geteuid() == 0 {
			t.Errorf("target is there: %v; what a link names was given away", there)
		}
	}
}

func TestUnsafeEntries(t *testing.T) {
	q := mustOpen(t)
	if err := os.Chmod(q.entries(), 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := Open(q.Dir())
	if unsafe, ok := errors.AsType[*UnsafeError](err); !ok || unsafe.Dir != q.entries() {
		t.Errorf("opened a queue to which everybody can add: %v", err)
	}
}

func TestTidy(t *testing.T) {
	q := mustOpen(t)
	id := mustAdd(t, q, mkEntry(t))
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, age := range map[string]time.Duration{".old": 2 * time.Hour, ".young": time.Minute} {
		if err := os.WriteFile(q.file(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(q.file(name), now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Tidy(now); err != nil {
		t.Fatal(err)
	}
	if ids, _ := q.IDs(); len(ids) != 1 || ids[0] != id {
		t.Errorf("listed %v: what begins with a dot is no entry", ids)
	}
	names, _ := readNames(q.entries())
	if len(names) != 2 {
		t.Errorf("left: %v, want the entry and the young file", names)
	}
}

func TestLock(t *testing.T) {
	q := mustOpen(t)
	if pid := q.PID(); pid != 0 {
		t.Errorf("process %d has locked a new queue", pid)
	}
	unlock, err := q.Lock()
	if err != nil {
		t.Fatal(err)
	}
	_, err = q.Lock()
	if locked, ok := errors.AsType[*LockedError](err); !ok || locked.PID == "" {
		t.Errorf("locked twice: %v", err)
	}
	if pid := q.PID(); pid != os.Getpid() {
		t.Errorf("it is locked by process %d, want %d", pid, os.Getpid())
	}
	unlock()
	unlock, err = q.Lock()
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	unlock()
}

func TestSeen(t *testing.T) {
	q := mustOpen(t)
	a, b := Target{Cache: "a"}, Target{Cache: "b"}
	if at, err := q.Seen(a); err != nil || !at.IsZero() {
		t.Errorf("before any watcher: %v %v", at, err)
	}
	for _, at := range []time.Time{time.Unix(1_700_000_000, 0), time.Unix(1_800_000_000, 0)} {
		if err := q.SetSeen(a, at); err != nil {
			t.Fatal(err)
		}
		if got, err := q.Seen(a); err != nil || !got.Equal(at) {
			t.Errorf("seen %v %v, want %v", got, err, at)
		}
	}
	if at, _ := q.Seen(b); !at.IsZero() {
		t.Errorf("another target was seen at %v", at)
	}
}

func TestLinks(t *testing.T) {
	q := mustOpen(t)
	p := mkEntry(t).Paths[0]
	for range 2 {
		link, err := q.Link(p)
		if err != nil {
			t.Fatal(err)
		}
		if to, _ := os.Readlink(link); to != p.String() {
			t.Errorf("%s leads to %s", link, to)
		}
	}
	if links, err := q.Links(); err != nil || len(links) != 1 || links[0] != p.Base() {
		t.Errorf("links %v %v", links, err)
	}
	for range 2 {
		if err := q.Unlink(p.Base()); err != nil {
			t.Error(err)
		}
	}
	if links, _ := q.Links(); len(links) > 0 {
		t.Errorf("left: %v", links)
	}
}

// Many writers at once, each a stranger to the others.
func TestManyWriters(t *testing.T) {
	dir := mustOpen(t).Dir()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			q, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			for range 10 {
				if _, err := q.Add(mkEntry(t)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	q, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := q.IDs()
	if err != nil || len(ids) != 160 {
		t.Fatalf("%d entries, %v, want 160", len(ids), err)
	}
	for _, id := range ids {
		if _, err := q.Read(id); err != nil {
			t.Error(err)
		}
	}
}
