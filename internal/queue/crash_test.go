package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// powerDisk is a disk in memory that forgets, when the power fails, whatever was not
// synced: of a file any part of its end, of a directory any of its changes, each for
// itself.
type powerDisk struct {
	files  map[string]*powerFile // by name, as a process sees them
	stable map[string]*powerFile // by name, as after a power failure at the latest sync
	calls  int
	failAt int   // the call that fails; 0 = none
	err    error // with what
}

type powerFile struct {
	d       *powerDisk
	content []byte
	stable  int // bytes that are synced
}

func newPowerDisk() *powerDisk {
	return &powerDisk{files: map[string]*powerFile{}, stable: map[string]*powerFile{}}
}

var errPower = errors.New("the power failed")

// call counts what is done to the disk, and fails when it is time. A failure of the
// power lasts.
func (d *powerDisk) call() error {
	d.calls++
	if d.failAt > 0 && (d.calls == d.failAt || d.calls > d.failAt && errors.Is(d.err, errPower)) {
		return d.err
	}
	return nil
}

func (d *powerDisk) disk() disk {
	return disk{
		create: func(name string) (file, error) {
			if err := d.call(); err != nil {
				return nil, err
			}
			if d.files[name] != nil {
				return nil, fs.ErrExist
			}
			f := &powerFile{d: d}
			d.files[name] = f
			return f, nil
		},
		rename: func(from, to string) error {
			if err := d.call(); err != nil {
				return err
			}
			d.files[to] = d.files[from]
			delete(d.files, from)
			return nil
		},
		remove: func(name string) error {
			if err := d.call(); err != nil {
				return err
			}
			if d.files[name] == nil {
				return fs.ErrNotExist
			}
			delete(d.files, name)
			return nil
		},
		syncDir: func(string) error {
			if err := d.call(); err != nil {
				return err
			}
			d.stable = maps.Clone(d.files)
			return nil
		},
		readFile: func(name string, _ int) ([]byte, error) {
			f := d.files[name]
			if f == nil {
				return nil, fs.ErrNotExist
			}
			return f.content, nil
		},
		readNames: func(string) ([]string, error) {
			var names []string
			for name := range d.files {
				names = append(names, filepath.Base(name))
			}
			return names, nil
		},
	}
}

func (f *powerFile) Write(b []byte) (int, error) {
	if err := f.d.call(); err != nil {
		half := b[:len(b)/2] // a disk that is full takes some
		f.content = append(f.content, half...)
		return len(half), err
	}
	f.content = append(f.content, b...)
	return len(b), nil
}

func (f *powerFile) Sync() error {
	if err := f.d.call(); err != nil {
		return err
	}
	f.stable = len(f.content)
	return nil
}

func (f *powerFile) Close() error { return f.d.call() }

// powerUp is the disk after the power came back.
func (d *powerDisk) powerUp(r *rand.Rand) *powerDisk {
	after := newPowerDisk()
	names := slices.Collect(maps.Keys(d.files))
	names = append(names, slices.Collect(maps.Keys(d.stable))...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		f := d.stable[name]
		if changed := d.files[name]; changed != f && r.IntN(2) == 0 {
			f = changed
		}
		if f == nil {
			continue
		}
		kept := f.stable + r.IntN(len(f.content)-f.stable+1)
		content := slices.Clone(f.content[:kept])
		if r.IntN(4) == 0 { // the length reached the disk, the bytes did not
			content = append(content, make([]byte, len(f.content)-kept)...)
		}
		after.files[name] = &powerFile{d: after, content: content, stable: len(content)}
	}
	after.stable = maps.Clone(after.files)
	return after
}

// The power fails at every call, many times each. What was acknowledged is there as it
// was, and what else is there is an entry as well and not half of one.
func TestPowerFailure(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	base := mkEntry(t)
	for failAt := 1; ; failAt++ {
		finished := false
		for range 40 {
			d := newPowerDisk()
			d.failAt, d.err = failAt, errPower
			q := &Queue{dir: "/q", disk: d.disk()}
			acked := map[ID]Entry{}
			finished = true
			for i := range 4 {
				e := base
				e.Target.Cache = fmt.Sprintf("cache%d", i)
				e.Queued = base.Queued.Add(time.Duration(i) * time.Second)
				id, err := q.Add(e)
				if err != nil {
					finished = false
					break
				}
				acked[id] = e
			}
			after := &Queue{dir: "/q", disk: d.powerUp(r).disk()}
			ids, err := after.IDs()
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				got, err := after.Read(id)
				if err != nil {
					t.Fatalf("power failed at call %d: %v", failAt, err)
				}
				if want, ok := acked[id]; ok && got.Target != want.Target {
					t.Fatalf("power failed at call %d: entry %s is another", failAt, id)
				}
				delete(acked, id)
			}
			if len(acked) > 0 {
				t.Fatalf("power failed at call %d: %d acknowledged entries are gone", failAt, len(acked))
			}
		}
		if finished {
			return
		}
	}
}

// Each call fails once: the error is told, nothing of the entry is left, and the next
// one is taken.
func TestFullDisk(t *testing.T) {
	full := errors.New("no space left on device")
	for failAt := 1; ; failAt++ {
		d := newPowerDisk()
		d.failAt, d.err = failAt, full
		q := &Queue{dir: "/q", disk: d.disk()}
		_, err := q.Add(mkEntry(t))
		if err == nil {
			if failAt < 5 {
				t.Fatalf("call %d failed, and Add did not say so", failAt)
			}
			return
		}
		if !errors.Is(err, full) {
			t.Errorf("call %d: error %q does not say why", failAt, err)
		}
		renamed := d.calls > 5 // the error came after the entry was there: it may count
		if ids, _ := q.IDs(); len(ids) > 0 && !renamed {
			t.Errorf("call %d failed: an entry is there that was refused", failAt)
		}
		if !renamed && len(d.files) > 0 {
			t.Errorf("call %d failed: %d files are left on a full disk", failAt, len(d.files))
		}
		if _, err := q.Add(mkEntry(t)); err != nil {
			t.Errorf("call %d failed: the next entry was refused: %v", failAt, err)
		}
	}
}
