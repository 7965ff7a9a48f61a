package index

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// files is one open Pebble directory. There are two while a snapshot takes the place
// of what was there before: readers that began on the old one finish on it, and the
// last of them closes it.
type files struct {
	db     *DB
	pebble *pebble.DB
	name   string       // of the directory, below the index's own
	refs   atomic.Int64 // the DB's, and one for each read under way; at 0 it is closed
}

func newFiles(db *DB, p *pebble.DB, name string) *files {
	f := &files{db: db, pebble: p, name: name}
	f.refs.Store(1)
	return f
}

// acquire returns what is to be read now. Who calls it calls release.
func (db *DB) acquire() *files {
	for {
		f := db.current.Load()
		for n := f.refs.Load(); n > 0; n = f.refs.Load() {
			if f.refs.CompareAndSwap(n, n+1) {
				return f
			}
		}
		// Retired between the two loads: there is a successor.
	}
}

// release lets go of f. The last one to do so, after it was retired, removes it.
func (f *files) release() {
	if f.refs.Add(-1) > 0 {
		return
	}
	err := f.pebble.Close()
	if rerr := f.db.fs.RemoveAll(f.db.fs.PathJoin(f.db.dir, f.name)); err == nil {
		err = rerr
	}
	if err != nil { // nobody waits for this; the next Open removes what is left
		f.db.log.Warn("the index that was replaced could not be removed", "err", err)
	}
}

// liveName reads which directory is the index. It is dbDir until a snapshot was
// loaded for the first time.
func (db *DB) liveName() string {
	f, err := db.fs.Open(db.fs.PathJoin(db.dir, liveTag))
	if err != nil {
		return dbDir
	}
	text, _ := io.ReadAll(io.LimitReader(f, 64))
	_ = f.Close()
	if name := strings.TrimSpace(string(text)); generation(name) > 0 {
		return name
	}
	return dbDir
}

// generation is the number in the name of a directory that a snapshot was loaded
// into; 0 for any other name.
func generation(name string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(name, dbDir+"."))
	if err != nil || n < 1 || generationName(n) != name {
		return 0
	}
	return n
}

func generationName(n int) string { return fmt.Sprintf("%s.%d", dbDir, n) }

// setLive makes name the directory that the next Open opens, in one step.
func (db *DB) setLive(name string) error {
	tmp, final := db.fs.PathJoin(db.dir, liveTag+".tmp"), db.fs.PathJoin(db.dir, liveTag)
	f, err := db.fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, name+"\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := db.fs.Rename(tmp, final); err != nil {
		return err
	}
	return db.syncDir()
}

func (db *DB) syncDir() error {
	d, err := db.fs.OpenDir(db.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// removeOthers removes what a crash left beside the index: one that was replaced,
// one that was not finished.
func (db *DB) removeOthers(live string) error {
	names, err := db.fs.List(db.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		stale := generation(name) > 0 || name == dbDir || name == liveTag+".tmp"
		if !stale || name == live {
			continue
		}
		if err := db.fs.RemoveAll(db.fs.PathJoin(db.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
