package recovery

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

const (
	// weighedSlots bounds how many lost slots are read to say what was in them.
	weighedSlots = 10_000
	// probedSlots bounds how many slots are asked for that are not listed.
	probedSlots = 256
	// namedCaches bounds how many caches a loss names.
	namedCaches = 10

	writeState  = "state"
	writeRoot   = "ROOT"
	writeFormat = "FORMAT"
)

// weigh says what is lost, as far as that can be told.
func (x *examiner) weigh(ctx context.Context) error {
	if err := x.probe(ctx); err != nil {
		return err
	}
	if !x.uncertain {
		if x.floor > 0 {
			x.loss("history", "the log can be read from slot %d on; states before can be restored only if there is a snapshot of them", uint64(x.floor))
		}
		return nil
	}
	last := x.reached.last
	switch {
	case last < x.newest:
		x.loss("slots", "%d to %d of the log", uint64(last)+1, uint64(x.newest))
	case x.newest == 0:
		x.loss("everything the log said", "caches, their keys, paths, pins and tokens: there is neither a snapshot nor a log")
	default:
		x.loss("slots", "any after slot %d: the log behind the snapshot was deleted, and nothing tells how long it was", uint64(last))
	}
	if err := x.weighSlots(ctx); err != nil {
		return err
	}
	x.weighTables()
	return nil
}

// probe asks for slots next to listed ones, and behind the last, that are not listed
// themselves: none of them must be there.
func (x *examiner) probe(ctx context.Context) error {
	var edges []wal.Seq
	for s := x.reached.last + 2; s < x.reached.last+10; s++ {
		if x.listed.slots[s].Key == "" {
			edges = append(edges, s)
		}
	}
	for seq := range x.listed.slots {
		for _, s := range []wal.Seq{seq - 1, seq + 1} {
			if s > x.reached.last && x.listed.slots[s].Key == "" && !slices.Contains(edges, s) && len(edges) < probedSlots {
				edges = append(edges, s)
			}
		}
	}
	return each(ctx, len(edges), func(ctx context.Context, i int) error {
		s, err := x.readSlot(ctx, edges[i])
		if err == nil && s.found() {
			err = &FickleError{edges[i].Key()}
		}
		return err
	})
}

// weighSlots reads the slots that are left of those that are lost.
func (x *examiner) weighSlots(ctx context.Context) error {
	readable, paths, ops := 0, 0, 0
	caches := map[string]bool{}
	slots := slices.DeleteFunc(slices.Sorted(maps.Keys(x.listed.slots)), func(s wal.Seq) bool { return s <= x.reached.last })
	for _, seq := range slots[:min(len(slots), weighedSlots)] {
		s, err := x.readSlot(ctx, seq)
		if err != nil {
			return err
		}
		if !s.sound() {
			if x.plan.Salvage || seq > x.reached.last+1 {
				x.note(seq.Key(), &s.object)
			}
			continue
		}
		readable++
		for _, e := range s.seg.Entries {
			switch {
			case e.Kind == wal.PushBoundary:
				ops++
			case e.Kind == wal.Set && e.Key[0] == keyspace.PathPrefix:
				paths++
			case e.Kind == wal.Set && e.Key[0] == keyspace.CachePrefix:
				if name, err := keyspace.DecodeCacheKey(e.Key); err == nil {
					caches[string(name)] = true
				}
			}
		}
	}
	if readable == 0 {
		return nil
	}
	what := "lost with them"
	if x.plan.Salvage {
		what = "in slots that can be read, and are used"
	}
	x.loss("operations", "%d %s; they published %d paths and made or changed %d caches%s", ops, what, paths, len(caches), nameSome(caches))
	return nil
}

func nameSome(names map[string]bool) string {
	if len(names) == 0 {
		return ""
	}
	all := slices.Sorted(maps.Keys(names))
	more := ""
	if len(all) > namedCaches {
		more = fmt.Sprintf(" and %d more", len(all)-namedCaches)
		all = all[:namedCaches]
	}
	return ": " + strings.Join(all, ", ") + more
}

// weighTables says what rows were in tables that a salvage does without.
func (x *examiner) weighTables() {
	if !x.plan.Salvage || x.base.snapshot == nil {
		return
	}
	rows := map[string]int64{}
	for i := range x.base.snapshot.Runs {
		for _, t := range x.base.snapshot.Runs[i].Tables {
			if x.checked[t.Key] != "" {
				kind := keyspace.Kind(t.Smallest)
				if kind == "" {
					kind = "other"
				}
				rows[kind] += t.Sets
			}
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(rows)) {
		x.loss("rows", "%d rows of kind %s, in tables that are missing or damaged; older values of them may come back", rows[kind], kind)
	}
}

// keepBookmarks finds out which bookmarks can be kept.
func (x *examiner) keepBookmarks(ctx context.Context) error {
	x.bookmarks = map[string]wal.Seq{}
	if x.root.sound() {
		maps.Copy(x.bookmarks, x.rootSays.Bookmarks)
	} else {
		all, err := wal.ListBookmarks(ctx, x.log, x.store)
		if err != nil {
			return err
		}
		for _, b := range all {
			x.bookmarks[b.Name] = b.Seq
		}
	}
	if !x.uncertain {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(x.bookmarks)) {
		seq := x.bookmarks[name]
		kept, err := x.keeps(ctx, seq)
		if err != nil {
			return err
		}
		if !kept {
			x.loss("bookmark", "%s, of slot %d: what leads there is lost", name, uint64(seq))
			delete(x.bookmarks, name)
		}
	}
	return nil
}

// keeps reports whether there is a snapshot of a slot that lacks no tables.
func (x *examiner) keeps(ctx context.Context, seq wal.Seq) (bool, error) {
	for _, info := range x.listed.snapshots {
		if of, ok := snapshotSeq(info.Key); !ok || of != seq || slices.Contains(x.bad, info.Key) || slices.Contains(x.left, info.Key) {
			continue
		}
		var s *wal.Snapshot
		o, err := x.read(ctx, info.Key, func(body []byte) (err error) { s, err = wal.DecodeSnapshot(body); return err })
		if err != nil {
			return false, err
		}
		if o.sound() && x.listsTables(s) {
			return true, nil
		}
	}
	return false, nil
}

// listsTables reports whether all tables of a snapshot are listed, and nothing is known
// to be wrong with them.
func (x *examiner) listsTables(s *wal.Snapshot) bool {
	for i := range s.Runs {
		for j := range s.Runs[i].Tables {
			t := &s.Runs[i].Tables[j]
			if size, there := x.listed.tables[t.Key]; !there || size != t.Size || x.checked[t.Key] != "" {
				return false
			}
		}
	}
	return true
}

// decide works out what is to be written.
func (x *examiner) decide(ctx context.Context) error {
	p := x.plan
	p.Snapshot, p.First, p.Last = uint64(x.base.ref.Seq), uint64(x.base.ref.Seq)+1, uint64(x.reached.last)
	p.Next = p.Last + 1
	superseded := wal.Seq(0) // what ROOT may have named
	for _, info := range x.listed.snapshots {
		if seq, ok := snapshotSeq(info.Key); ok {
			superseded = max(superseded, seq)
		}
	}
	if x.root.sound() {
		superseded = x.rootSays.Snapshot.Seq
	}
	switch {
	case x.uncertain:
		p.Write = append(p.Write, writeState, writeRoot)
		p.Adopt = true
		p.Next = uint64(x.next())
	case x.base.ref.Seq < superseded:
		// An older snapshot and the log behind it. ROOT's snapshot must not go back.
		p.Write = append(p.Write, writeState, writeRoot)
	case !x.root.sound() || x.floor > x.rootSays.Floor || x.base.ref.Key != x.rootSays.Snapshot.Key:
		p.Write = append(p.Write, writeRoot)
	}
	if !x.format.sound() {
		p.Write = append(p.Write, writeFormat)
	}
	if len(p.Write) > 0 {
		p.Evidence = string(x.evidenceKey(""))
	}
	return ctx.Err()
}

// lookAgain lists the bucket a second time, if something is missing.
func (x *examiner) lookAgain(ctx context.Context) error {
	if len(x.plan.Findings) == 0 {
		return nil
	}
	again, err := list(ctx, x.log)
	if err != nil {
		return err
	}
	if key, ok := x.listed.differs(again); ok {
		return &FickleError{key}
	}
	return nil
}

// next is the slot at which a log goes on that has lost some.
func (x *examiner) next() wal.Seq { return max(x.newest, x.top) + safetyGap + 1 }
