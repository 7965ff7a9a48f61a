package chunkstore

import (
	"container/list"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// resident keeps served NARs whole as files in a directory:
//
//	<etag>-<CRC-32C>-<size>.zst     a copy; 32, 8 and 16 hexadecimal digits
//	tmp-*                           one being written
//
// Nothing depends on the files. They may be deleted at any moment, and are not
// synced: after a crash one may be cut short or full of zeros, so a file that this
// process has not written is read once and compared with its name before it is
// first used.
type resident struct {
	dir    string
	most   int64
	copies int // at most
	now    func() time.Time
	m      *storeMetrics

	mu    sync.Mutex // guards the fields below; no I/O but renames and removals under it
	items map[string]*list.Element
	order *list.List // of *copyFile, used last in front
	bytes int64
	begun map[string]struct{} // etags being written by a reader
	// writing are the bytes of all unfinished copies. They take up the same disk.
	writing int64
}

type copyFile struct {
	etag    string
	name    string // in dir
	size    int64
	checked bool      // its content was compared with its name, or written by us
	touched time.Time // when its times were last set
}

// disk is what the copy takes up: file systems give out whole blocks.
func (f *copyFile) disk() int64 { return (f.size + blockBytes - 1) / blockBytes * blockBytes }

const blockBytes = 4096

// maxCopies bounds the copies, of which each takes a quarter of a KiB of memory and
// a look at its file when the store is opened. Ten GiB would be millions of tiny ones.
const maxCopies = 128 << 10

func openResident(dir string, most int64, now func() time.Time, m *storeMetrics) (*resident, error) {
	c := &resident{
		dir: dir, most: most, copies: maxCopies, now: now, m: m,
		items: make(map[string]*list.Element), order: list.New(), begun: make(map[string]struct{}),
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory for resident copies: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read directory of resident copies: %w", err)
	}
	type found struct {
		*copyFile
		used time.Time
	}
	var files []found
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			os.Remove(filepath.Join(dir, e.Name())) // left behind by a crash
			continue
		}
		f, ok := parseCopyName(e.Name())
		if !ok {
			continue // not ours
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() != f.size {
			os.Remove(filepath.Join(dir, f.name))
			continue
		}
		files = append(files, found{f, info.ModTime()})
	}
	slices.SortFunc(files, func(a, b found) int { return a.used.Compare(b.used) })
	for _, f := range files {
		if _, ok := c.items[f.etag]; ok {
			os.Remove(filepath.Join(dir, f.name))
			continue
		}
		c.items[f.etag] = c.order.PushFront(f.copyFile)
		c.bytes += f.disk()
	}
	c.evict()
	return c, nil
}

const tmpPrefix = "tmp-"

func copyName(etag string, sum uint32, size int64) string {
	return fmt.Sprintf("%s-%08x-%016x.zst", etag, sum, size)
}

func parseCopyName(name string) (*copyFile, bool) {
	parts := strings.Split(strings.TrimSuffix(name, ".zst"), "-")
	if len(parts) != 3 {
		return nil, false
	}
	sum, err1 := strconv.ParseUint(parts[1], 16, 32)
	size, err2 := strconv.ParseInt(parts[2], 16, 64)
	f := &copyFile{etag: parts[0], name: name, size: size}
	return f, err1 == nil && err2 == nil && len(f.etag) == 32 && copyName(f.etag, uint32(sum), size) == name
}

// open returns the copy, or nil if there is none.
func (c *resident) open(etag string, size int64) *os.File {
	c.mu.Lock()
	e, ok := c.items[etag]
	if !ok {
		c.mu.Unlock()
		return nil
	}
	c.order.MoveToFront(e)
	entry := e.Value.(*copyFile)
	checked, name := entry.checked, entry.name
	touch := c.now().Sub(entry.touched) > touchEvery
	if touch {
		entry.touched = c.now()
	}
	c.mu.Unlock()

	f, err := os.Open(filepath.Join(c.dir, name))
	if err != nil {
		c.forget(etag, entry)
		return nil
	}
	if !c.sound(f, entry, size, checked) {
		f.Close()
		c.forget(etag, entry)
		os.Remove(filepath.Join(c.dir, name))
		return nil
	}
	if touch {
		// So that the order of use survives a restart, more or less.
		os.Chtimes(filepath.Join(c.dir, name), time.Time{}, c.now())
	}
	c.m.residentHits.Inc()
	return f
}

// touchEvery bounds how often a copy's modification time is set to its last use.
const touchEvery = time.Minute

// sound compares a file with what its name promises: its size always, its content
// if this process has not done so yet.
func (c *resident) sound(f *os.File, entry *copyFile, size int64, checked bool) bool {
	info, err := f.Stat()
	if err != nil || info.Size() != size || entry.size != size {
		return false
	}
	if checked {
		return true
	}
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if _, err := io.Copy(h, f); err != nil {
		return false
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false
	}
	if copyName(entry.etag, h.Sum32(), size) != entry.name {
		return false
	}
	c.mu.Lock()
	entry.checked = true
	c.mu.Unlock()
	return true
}

func (c *resident) forget(etag string, entry *copyFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[etag]; ok && e.Value.(*copyFile) == entry {
		c.remove(e)
	}
}

// remove takes an entry off the books. The caller holds the lock.
func (c *resident) remove(e *list.Element) {
	entry := c.order.Remove(e).(*copyFile)
	delete(c.items, entry.etag)
	c.bytes -= entry.disk()
}

// evict deletes what was not used for longest until the rest and the unfinished
// copies fit and are not too many. Whoever has such a file open goes on reading it. The caller holds
// the lock.
func (c *resident) evict() {
	for len(c.items) > 0 && (c.bytes+c.writing > c.most || len(c.items) > c.copies) {
		e := c.order.Back()
		os.Remove(filepath.Join(c.dir, e.Value.(*copyFile).name))
		c.remove(e)
		c.m.residentDrops.Inc()
	}
}

func (c *resident) close() error { return nil }

// admission is a copy being written. Its errors are nobody's: without a copy the
// NAR is read from the bucket.
type admission struct {
	c    *resident
	etag string // reserved in begun, or empty
	f    *os.File
	sum  uint32
	size int64
	held int64 // of c.writing
}

// begin starts a copy, or returns nil if that makes no sense: there is one, or
// somebody else is writing it. A writer does not know the etag yet and gives none.
func (c *resident) begin(etag string) *admission {
	if etag != "" {
		c.mu.Lock()
		_, there := c.items[etag]
		_, begun := c.begun[etag]
		if there || begun {
			c.mu.Unlock()
			return nil
		}
		c.begun[etag] = struct{}{}
		c.mu.Unlock()
	}
	return &admission{c: c, etag: etag}
}

// write adds bytes to the copy. If it returns false, the copy has been given up.
func (a *admission) write(p []byte) bool {
	if a.f == nil {
		f, err := os.CreateTemp(a.c.dir, tmpPrefix)
		if err != nil {
			a.drop()
			return false
		}
		a.f = f
	}
	if !a.reserve(int64(len(p))) {
		a.drop()
		return false
	}
	if _, err := a.f.Write(p); err != nil {
		a.drop()
		return false
	}
	a.sum = crc32.Update(a.sum, crc32.MakeTable(crc32.Castagnoli), p)
	a.size += int64(len(p))
	return true
}

// reserve makes room for n more bytes. What would push out half of the finished
// copies, alone or together with others that are being written, is not worth it.
func (a *admission) reserve(n int64) bool {
	c := a.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing+n > c.most/2 {
		return false
	}
	c.writing += n
	a.held += n
	c.evict()
	return true
}

// free ends the reservation. The caller holds the lock.
func (a *admission) free() {
	a.c.writing -= a.held
	a.held = 0
}

// admit makes the copy available, if it has the right size.
func (a *admission) admit(etag string, size int64) {
	if a.f == nil || a.size != size {
		a.drop()
		return
	}
	tmp := a.f.Name()
	err := a.f.Close()
	a.f = nil
	c := a.c
	c.mu.Lock()
	defer c.mu.Unlock()
	a.free()
	delete(c.begun, a.etag)
	if _, there := c.items[etag]; err != nil || there {
		os.Remove(tmp)
		return
	}
	entry := &copyFile{etag: etag, name: copyName(etag, a.sum, size), size: size, checked: true, touched: c.now()}
	if err := os.Rename(tmp, filepath.Join(c.dir, entry.name)); err != nil {
		os.Remove(tmp)
		return
	}
	c.items[etag] = c.order.PushFront(entry)
	c.bytes += entry.disk()
	c.m.residents.Inc()
	c.evict()
}

// drop gives the copy up.
func (a *admission) drop() {
	if a.f != nil {
		a.f.Close()
		os.Remove(a.f.Name())
		a.f = nil
	}
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	a.free()
	if a.etag != "" {
		delete(a.c.begun, a.etag)
		a.etag = ""
	}
}
