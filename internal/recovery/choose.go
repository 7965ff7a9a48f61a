package recovery

import (
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/pack"
	"github.com/celler/celler/wal"
)

// safetyGap is how far above the last slot with a trace a log goes on that has lost
// slots: more than anybody can have written of which nothing is left.
const safetyGap wal.Seq = 1 << 20

// readSnapshots reads the snapshots there are, newest first. Of many only those that
// may be needed are looked at closely, in choose.
func (x *examiner) readSnapshots(ctx context.Context) error {
	keys := make([]blob.Key, 0, len(x.listed.snapshots)+1)
	for _, info := range slices.Backward(x.listed.snapshots) {
		if !slices.Contains(x.left, info.Key) {
			keys = append(keys, info.Key)
		}
	}
	named := x.rootSays.Snapshot
	if x.root.sound() && named.Seq > 0 {
		// What ROOT names comes first, listed or not.
		keys = slices.DeleteFunc(keys, func(k blob.Key) bool { return k == named.Key })
		keys = slices.Insert(keys, 0, named.Key)
	}
	x.o.Progress("reading snapshots")
	found := wal.Seq(0)
	for _, key := range keys {
		if seq, ok := snapshotSeq(key); found > 0 && ok && seq != found {
			return nil // older ones add nothing
		}
		c := candidate{}
		o, err := x.read(ctx, key, func(body []byte) (err error) {
			c.snapshot, err = wal.DecodeSnapshot(body)
			if err == nil && c.snapshot.Store != x.store {
				err = &wal.ForeignError{Key: key, Store: c.snapshot.Store, Own: x.store}
			}
			if err == nil && key == named.Key && wal.DigestOf(body) != named.SHA256 {
				err = fmt.Errorf("its SHA-256 is %v, ROOT says %v", wal.DigestOf(body), named.SHA256)
			}
			return err
		})
		if err != nil {
			return err
		}
		if !o.sound() {
			x.note(key, &o)
			if o.found() {
				x.bad = append(x.bad, key)
			}
			continue
		}
		s := c.snapshot
		c.ref = wal.SnapshotRef{Seq: s.Seq, Digest: s.Digest, Key: key, SHA256: wal.DigestOf(o.body), Epoch: s.Epoch}
		if key == named.Key {
			c.ref.Epoch = named.Epoch
		}
		x.bases = append(x.bases, c)
		if whole, err := x.whole(ctx, &c); err != nil {
			return err
		} else if whole {
			found = s.Seq
		}
	}
	return nil
}

// whole reports whether all tables of a snapshot are there, and notes those that are
// not.
func (x *examiner) whole(ctx context.Context, c *candidate) (bool, error) {
	var tables []*wal.Table
	for i := range c.snapshot.Runs {
		for j := range c.snapshot.Runs[i].Tables {
			if t := &c.snapshot.Runs[i].Tables[j]; !x.known(t.Key) {
				tables = append(tables, t)
			}
		}
	}
	damage := make([]string, len(tables))
	err := each(ctx, len(tables), func(ctx context.Context, i int) (err error) {
		x.o.Progress(fmt.Sprintf("checking tables of the snapshot of slot %d", uint64(c.ref.Seq)))
		damage[i], err = x.checkTable(ctx, tables[i])
		return err
	})
	if err != nil {
		return false, err
	}
	for i, t := range tables {
		x.checked[t.Key] = damage[i]
		if damage[i] != "" {
			x.finding(t.Key, "%s (snapshot of slot %d)", damage[i], uint64(c.ref.Seq))
		}
	}
	return x.complete(c), nil
}

func (x *examiner) known(key blob.Key) bool { _, ok := x.checked[key]; return ok }

// complete reports whether nothing is wrong with the tables of a snapshot, which must
// have been checked.
func (x *examiner) complete(c *candidate) bool {
	for i := range c.snapshot.Runs {
		for j := range c.snapshot.Runs[i].Tables {
			if x.checked[c.snapshot.Runs[i].Tables[j].Key] != "" {
				return false
			}
		}
	}
	return true
}

// choose decides what the state is to be made of.
func (x *examiner) choose(ctx context.Context) error {
	x.o.Progress("reading the log")
	chosen, err := x.chooseBase(ctx)
	if err != nil {
		return err
	}
	if x.reached.stop != "" {
		x.finding((x.reached.last + 1).Key(), "%s", x.reached.stop)
	}
	for seq := range x.listed.slots {
		x.newest = max(x.newest, seq)
	}
	for _, info := range x.listed.snapshots {
		if seq, ok := snapshotSeq(info.Key); ok {
			x.top = max(x.top, seq)
			if !slices.Contains(x.left, info.Key) {
				x.newest = max(x.newest, seq)
			}
		}
	}
	if x.root.sound() {
		x.newest = max(x.newest, x.rootSays.TailHint, x.rootSays.Snapshot.Seq)
	}
	if x.o.Seen > x.newest {
		x.finding(fmt.Sprintf("%s to %s", (x.newest+1).Key(), x.o.Seen.Key()), "missing: somebody has seen the last of them")
		x.newest = x.o.Seen
	}
	packs, err := x.hasPacks(ctx)
	if err != nil {
		return err
	}
	fresh := x.newest == 0 && x.root.sound() && !packs // founded, and nothing was ever written
	proven := chosen || x.reached.last > 0 || fresh
	x.plan.Salvage = x.o.Salvage || !proven && len(x.bases)+len(x.listed.slots) > 0
	if x.plan.Salvage && len(x.bases) > 0 {
		x.base = x.bases[0]
		if x.reached, err = x.follow(ctx, x.base.ref.Seq, x.base.ref.Digest, nil); err != nil {
			return err
		}
	}
	x.uncertain = x.reached.last < x.newest || !proven
	if err := x.checkKept(ctx); err != nil {
		return err
	}
	x.plan.Salvage = x.plan.Salvage && (x.uncertain || x.base.snapshot != nil && !x.complete(&x.base))
	x.uncertain = x.uncertain || x.plan.Salvage
	return nil
}

// chooseBase takes the snapshot from which the log leads furthest, and the empty state
// if none is whole.
func (x *examiner) chooseBase(ctx context.Context) (chosen bool, err error) {
	x.reached.last = 0
	for i := range x.bases {
		c := x.bases[i]
		if !x.complete(&c) {
			continue
		}
		reached, err := x.follow(ctx, c.ref.Seq, c.ref.Digest, nil)
		if err != nil {
			return false, err
		}
		if !chosen || reached.last > x.reached.last {
			x.base, x.reached, chosen = c, reached, true
		}
	}
	if !chosen {
		x.reached, err = x.follow(ctx, 0, wal.Digest{}, nil)
	}
	return chosen, err
}

// checkKept looks for slots from the floor on that must be there although the state
// does not need them. If the one of the snapshot is missing, so may be any behind it.
func (x *examiner) checkKept(ctx context.Context) error {
	at := x.rootSays.Snapshot.Seq
	if !x.root.sound() || at == 0 || at < x.rootSays.Floor || at > x.newest {
		return nil
	}
	first, err := x.firstKept(ctx, at)
	if err != nil {
		return err
	}
	if first <= max(x.rootSays.Floor, 1) {
		return nil
	}
	bad := first - 1
	s, err := x.readSlot(ctx, bad)
	if err != nil {
		return err
	}
	if s.sound() {
		s.damage = fmt.Errorf("slot %d does not follow it", uint64(first))
	}
	x.note(bad.Key(), &s.object)
	if first > at && x.reached.last <= at {
		x.uncertain = true
		return nil
	}
	x.floor = first
	return nil
}

// firstKept returns the first slot from which the log leads to the snapshot in slot at.
func (x *examiner) firstKept(ctx context.Context, at wal.Seq) (wal.Seq, error) {
	if !x.o.Quick {
		return x.lead(ctx, at, x.rootSays.Snapshot.Digest)
	}
	first := at + 1
	for first > max(x.rootSays.Floor, 1) && x.listed.slots[first-1].Key != "" {
		first--
	}
	return first, nil
}

// hasPacks reports whether there is any pack.
func (x *examiner) hasPacks(ctx context.Context) (bool, error) {
	for _, err := range x.data.List(ctx, pack.Prefix, "") {
		if err != nil {
			return false, fmt.Errorf("list packs: %w", err)
		}
		return true, nil
	}
	return false, nil
}
