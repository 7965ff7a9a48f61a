package fsck

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// tablesTries is how often a snapshot is looked at that is replaced meanwhile.
const tablesTries = 5

// findTables looks whether the tables are there that a server begins with, and those that
// bookmarks need.
func (k *check) findTables(ctx context.Context) error {
	if k.o.Log == nil {
		return nil
	}
	k.o.Progress(Progress{Phase: "tables"})
	sizes, err := k.listTables(ctx)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		root, err := wal.ReadRoot(ctx, k.o.Log)
		if err != nil {
			return fmt.Errorf("look for tables: %w", err)
		}
		problems, err := k.snapshot(ctx, &root, sizes)
		if err != nil {
			return err
		}
		if len(problems) == 0 {
			break
		}
		// A compactor may have put another in its place, and removed it.
		now, err := wal.ReadRoot(ctx, k.o.Log)
		if err != nil {
			return fmt.Errorf("look for tables: %w", err)
		}
		if now.Snapshot.Key != root.Snapshot.Key && try < tablesTries {
			if sizes, err = k.listTables(ctx); err != nil {
				return err
			}
			continue
		}
		for _, f := range problems {
			if err := k.found(f); err != nil {
				return err
			}
		}
		break
	}
	return k.bookmarks(ctx, sizes)
}

func (k *check) listTables(ctx context.Context) (map[blob.Key]int64, error) {
	sizes := map[blob.Key]int64{}
	for info, err := range k.o.Log.List(ctx, "tab/", "") {
		if err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		sizes[info.Key] = info.Size
	}
	return sizes, nil
}

func badTable(what string, err error) Finding {
	return Finding{Kind: BadTable, What: what, Problem: err.Error()}
}

// snapshot says what is wrong with the snapshot that ROOT names.
func (k *check) snapshot(ctx context.Context, root *wal.Root, sizes map[blob.Key]int64) (problems []Finding, err error) {
	ref := root.Snapshot
	k.rep.Tables, k.rep.TableBytes, k.rep.ReadTables = 0, 0, 0
	if ref.Seq == 0 {
		return nil, nil
	}
	s, err := wal.ReadSnapshot(ctx, k.o.Log, root.Store, ref)
	if err != nil {
		what := fmt.Sprintf("snapshot of slot %d", uint64(ref.Seq))
		if errors.Is(err, blob.ErrNotExist) {
			gone, err := k.gone(ctx, ref.Key)
			if !gone || err != nil {
				return nil, err
			}
			return []Finding{badTable(what, errGone)}, nil
		}
		if wal.IsDamage(err) {
			return []Finding{badTable(what, err)}, nil
		}
		return nil, err
	}
	for t := range tables(s) {
		k.rep.Tables++
		k.rep.TableBytes += t.Size
		problem, err := k.table(ctx, t, sizes)
		if err != nil {
			return nil, err
		}
		if problem != nil {
			problems = append(problems, badTable("table "+string(t.Key), problem))
		}
	}
	return problems, nil
}

var errGone = errors.New("it is not in the bucket")

func tables(s *wal.Snapshot) func(func(*wal.Table) bool) {
	return func(yield func(*wal.Table) bool) {
		for i := range s.Runs {
			for j := range s.Runs[i].Tables {
				if !yield(&s.Runs[i].Tables[j]) {
					return
				}
			}
		}
	}
}

// table says what is wrong with a table, if anything.
func (k *check) table(ctx context.Context, t *wal.Table, sizes map[blob.Key]int64) (problem, err error) {
	size, there := sizes[t.Key]
	switch {
	case !there:
		gone, err := k.gone(ctx, t.Key)
		if !gone || err != nil {
			return nil, err
		}
		return errGone, nil
	case size != t.Size:
		return fmt.Errorf("it has %d bytes, want %d", size, t.Size), nil
	case !k.mode.Read.All:
		return nil, nil
	}
	for range 2 {
		var sum wal.Digest
		if sum, err = k.readTable(ctx, t); err != nil {
			return nil, fmt.Errorf("read table %s: %w", t.Key, err)
		}
		if sum == t.SHA256 {
			k.rep.ReadTables++
			return nil, nil
		}
		problem = fmt.Errorf("its SHA-256 is %v, want %v", sum, t.SHA256)
	}
	return problem, nil
}

func (k *check) readTable(ctx context.Context, t *wal.Table) (sum wal.Digest, err error) {
	body, err := k.o.Log.GetRange(ctx, t.Key, 0, t.Size)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	h := sha256.New()
	n, err := io.Copy(h, body)
	k.rep.ReadBytes += n
	return wal.Digest(h.Sum(nil)), err
}

// gone reports whether an object is definitely not there: two listings and two GETs
// do not find it.
func (k *check) gone(ctx context.Context, key blob.Key) (bool, error) {
	for range 2 {
		for info, err := range k.o.Log.List(ctx, key, "") {
			if err != nil || info.Key == key {
				return false, err
			}
		}
		if _, _, err := k.o.Log.Get(ctx, key); !errors.Is(err, blob.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}

// bookmarks looks whether there is a way to the states that bookmarks keep.
func (k *check) bookmarks(ctx context.Context, sizes map[blob.Key]int64) error {
	h, err := wal.ReadHistory(ctx, k.o.Log)
	if err != nil {
		return fmt.Errorf("look for bookmarks: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Root.Bookmarks)) {
		seq := h.Root.Bookmarks[name]
		for try := 1; h.Root.Bookmarks[name] == seq; try++ {
			problem, err := k.reach(ctx, h, seq, sizes)
			if err != nil {
				return err
			}
			if problem == nil {
				break
			}
			if try == tablesTries {
				f := badTable(fmt.Sprintf("bookmark %s of slot %d", name, uint64(seq)), problem)
				f.Bookmark = name
				if err := k.found(f); err != nil {
					return err
				}
				break
			}
			// It may have been removed, and what it kept with it; or a compactor has made
			// what leads there better, and removed what did before.
			if sizes, err = k.listTables(ctx); err != nil {
				return err
			}
			if h, err = wal.ReadHistory(ctx, k.o.Log); err != nil {
				return fmt.Errorf("look for bookmarks: %w", err)
			}
		}
	}
	return nil
}

func (k *check) reach(ctx context.Context, h *wal.History, seq wal.Seq, sizes map[blob.Key]int64) (problem, err error) {
	err = h.Reach(ctx, k.o.Log, seq)
	if far, ok := errors.AsType[*wal.UnreachableError](err); ok {
		return far, nil
	}
	if err != nil {
		return nil, err
	}
	for _, base := range h.Bases(seq) {
		if base.Seq == 0 {
			return nil, nil
		}
		ref, err := wal.ReadKept(ctx, k.o.Log, h.Root.Store, base)
		if errors.Is(err, blob.ErrNotExist) || wal.IsDamage(err) {
			problem = err
			continue
		}
		if err != nil {
			return nil, err
		}
		s, err := wal.ReadSnapshot(ctx, k.o.Log, h.Root.Store, ref)
		if errors.Is(err, blob.ErrNotExist) || wal.IsDamage(err) {
			problem = err
			continue
		}
		if err != nil {
			return nil, err
		}
		if problem, err = k.missingTable(ctx, s, sizes); problem == nil || err != nil {
			return nil, err
		}
	}
	return problem, nil
}

// missingTable says which table of a snapshot is not there, or has another length. One
// that is younger than the listing is looked for.
func (k *check) missingTable(ctx context.Context, s *wal.Snapshot, sizes map[blob.Key]int64) (problem, err error) {
	for t := range tables(s) {
		size, there := sizes[t.Key]
		if !there {
			gone, err := k.gone(ctx, t.Key)
			if err != nil {
				return nil, err
			}
			if gone {
				return fmt.Errorf("table %s is missing", t.Key), nil
			}
			continue
		}
		if size != t.Size {
			return fmt.Errorf("table %s has %d bytes, want %d", t.Key, size, t.Size), nil
		}
	}
	return nil, nil
}
