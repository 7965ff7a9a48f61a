package compact_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/wal"
)

var errKilled = errors.New("killed")

// mortal is a bucket as a process sees it that is killed at its n-th call: before the
// bucket hears of it, or after, when only the answer is missing.
type mortal struct {
	b      blob.Bucket
	after  bool
	kill   context.CancelFunc
	mu     sync.Mutex
	calls  int
	fatal  int
	killed string // what was under way
}

// call performs one call, or not.
func (m *mortal) call(op string, key blob.Key, perform func() error) error {
	m.mu.Lock()
	m.calls++
	n := m.calls
	if n == m.fatal {
		m.killed = fmt.Sprint(op, " ", key)
	}
	m.mu.Unlock()
	if n > m.fatal || n == m.fatal && !m.after {
		m.kill()
		return errKilled
	}
	err := perform()
	if n == m.fatal {
		m.kill()
		return errKilled
	}
	return err
}

func (m *mortal) Get(ctx context.Context, key blob.Key) (body []byte, tag blob.Tag, err error) {
	err = m.call("get", key, func() (err error) { body, tag, err = m.b.Get(ctx, key); return err })
	return body, tag, err
}

func (m *mortal) GetIf(ctx context.Context, key blob.Key, old blob.Tag) (body []byte, tag blob.Tag, err error) {
	err = m.call("get", key, func() (err error) { body, tag, err = m.b.GetIf(ctx, key, old); return err })
	return body, tag, err
}

func (m *mortal) GetRange(ctx context.Context, key blob.Key, off, n int64) (r io.ReadCloser, err error) {
	err = m.call("get", key, func() (err error) { r, err = m.b.GetRange(ctx, key, off, n); return err })
	return r, err
}

func (m *mortal) Create(ctx context.Context, key blob.Key, body []byte) (tag blob.Tag, err error) {
	err = m.call("create", key, func() (err error) { tag, err = m.b.Create(ctx, key, body); return err })
	return tag, err
}

func (m *mortal) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (tag blob.Tag, err error) {
	err = m.call("swap", key, func() (err error) { tag, err = m.b.Swap(ctx, key, old, body); return err })
	return tag, err
}

func (m *mortal) Put(ctx context.Context, key blob.Key, body []byte) (tag blob.Tag, err error) {
	err = m.call("put", key, func() (err error) { tag, err = m.b.Put(ctx, key, body); return err })
	return tag, err
}

// Delete may be broken off between any two objects.
func (m *mortal) Delete(ctx context.Context, keys ...blob.Key) error {
	for _, key := range keys {
		if err := m.call("delete", key, func() error { return m.b.Delete(ctx, key) }); err != nil {
			return err
		}
	}
	return nil
}

func (m *mortal) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		if err := m.call("list", prefix, func() error { return nil }); err != nil {
			yield(blob.Info{}, err)
			return
		}
		for info, err := range m.b.List(ctx, prefix, after) {
			if !yield(info, err) {
				return
			}
		}
	}
}

// TestKilledAnywhere kills a round that flushes, merges, installs, truncates and
// sweeps at each of its calls. An index made from what is left must equal a replay,
// the next round must finish the work, and nothing may be left lying about.
func TestKilledAnywhere(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(map[bool]string{false: "before the call", true: "after the call"}[after], func(t *testing.T) {
			points := map[string]bool{}
			step := 1
			if testing.Short() {
				step = 5
			}
			for fatal := 1; ; fatal += step {
				var point string
				t.Run(fmt.Sprint(fatal), func(t *testing.T) { point = killAt(t, fatal, after) })
				if point == "" {
					t.Logf("%d calls", fatal-1)
					break
				}
				points[point] = true
			}
			for _, want := range []string{"put tab/", "put snap/", "swap ROOT", "delete log/", "delete snap/", "delete tab/", "get tab/", "get log/"} {
				if !points[want] && step == 1 {
					t.Errorf("no round was killed at %q: %v", want, points)
				}
			}
		})
	}
}

// killAt reports what was under way, or "" if the round ended before it was killed.
func killAt(t *testing.T, fatal int, after bool) string {
	t.Helper()
	b := memblob.New()
	h := mkHistory(t, b, 3)
	h.ranges, h.narrow = true, true
	o := aggressive()
	o.FlushSegments, o.TableBytes = 8, 8000
	for range 2 {
		h.grow(8)
		mustRound(t, compact.New(b, o), compact.Mode{})
	}
	h.grow(9)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m := &mortal{b: b, after: after, kill: cancel, fatal: fatal}
	_, err := compact.New(m, o).Round(ctx, compact.Mode{})
	if m.killed == "" {
		if err != nil {
			t.Fatal(err)
		}
		return ""
	}
	what := fmt.Sprintf("killed at call %d, %s", fatal, m.killed)
	h.check(what)
	h.grow(1)
	mustRound(t, compact.New(b, o), compact.Mode{Steal: true})
	h.check(what + ", and the next round")
	wantNoGarbage(t, what, b, h.store)
	var op, dir string
	if _, err := fmt.Sscanf(m.killed, "%s %s", &op, &dir); err != nil {
		t.Fatal(err)
	}
	if len(dir) > 4 {
		dir = dir[:4]
	}
	if dir == "snap" {
		dir = "snap/"
	}
	return op + " " + dir
}

// wantNoGarbage wants the bucket to hold what ROOT needs and nothing else.
func wantNoGarbage(t *testing.T, what string, b blob.Bucket, store wal.StoreID) {
	t.Helper()
	root, err := wal.ReadRoot(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	s, err := wal.ReadSnapshot(t.Context(), b, store, root.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	tables := 0
	for i := range s.Runs {
		tables += len(s.Runs[i].Tables)
	}
	if n := len(objects(t, b, "tab/")); n != tables {
		t.Errorf("%s: %d tables, the snapshot has %d", what, n, tables)
	}
	if n := len(objects(t, b, "snap/")); n != 1 {
		t.Errorf("%s: %d snapshots", what, n)
	}
	if n := len(objects(t, b, "log/")); n != 1 {
		t.Errorf("%s: slots %v, floor %v", what, objects(t, b, "log/"), root.Floor)
	}
}
