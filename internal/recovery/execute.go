package recovery

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// epochGap is how far above all epochs with a trace a new one is, if ROOT is lost: more
// than have been claimed without writing anything.
const epochGap wal.Epoch = 1 << 16

// Result says what was done.
type Result struct {
	Evidence string `json:"evidence"`
	Snapshot uint64 `json:"snapshot"`
	Next     uint64 `json:"next_slot"`
	Packs    int    `json:"packs"`   // adopted
	Moved    int    `json:"moved"`   // found elsewhere than the state said
	Dropped  int    `json:"dropped"` // paths of caches of which nothing else is known
	// Unreadable counts packs that nothing is known of, because their footers are damaged.
	Unreadable int `json:"unreadable"`
	// Overtaken names slots that somebody wrote while this was done, who was told that they
	// count. They do not; they are among the evidence.
	Overtaken []string `json:"overtaken,omitempty"`
	// Check is set if what was written may refer to what is not there.
	Check bool `json:"check"`
}

// ChangedError reports that the bucket is not any more what was examined.
type ChangedError struct{ What string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s has changed since the bucket was examined: somebody else is at work on it", e.What)
}

// Execute does what the plan says. It can be broken off at any point: what it has
// written by then means nothing until ROOT is swapped, which is its last but one step.
func (p *Plan) Execute(ctx context.Context) (res Result, err error) {
	x := p.x
	if p.Sound() {
		return res, nil
	}
	res.Evidence, res.Next, res.Check = p.Evidence, p.Next, x.uncertain
	if err := x.copyEvidence(ctx); err != nil {
		return res, fmt.Errorf("copy what is to be replaced: %w", err)
	}
	root, err := x.newRoot(ctx)
	if err != nil {
		return res, err
	}
	if p.writes(writeState) {
		if root.Snapshot, err = x.buildState(ctx, root.CompactEpoch, &res); err != nil {
			return res, err
		}
	}
	if x.uncertain {
		root.Floor = root.Snapshot.Seq + 1
	}
	root.Snapshot.Epoch = root.CompactEpoch
	res.Snapshot = uint64(root.Snapshot.Seq)
	if p.writes(writeRoot) {
		if err := x.writeRoot(ctx, root); err != nil {
			return res, err
		}
		if res.Overtaken, err = x.overtaken(ctx); err != nil {
			return res, fmt.Errorf("ROOT is written; look for slots that were written meanwhile: %w", err)
		}
	}
	if p.writes(writeFormat) {
		if err := x.writeFormat(ctx); err != nil {
			return res, err
		}
	}
	x.removeBad(ctx)
	if err := x.keep(ctx, doneName, []byte("{}\n")); err != nil {
		x.o.Logger.Warn("the end of the recovery could not be noted", "err", err)
	}
	return res, nil
}

func (x *examiner) evidenceKey(name string) blob.Key {
	return evidenceKey(x.listed.evidence+1, name)
}

func evidenceKey(n uint32, name string) blob.Key {
	return blob.Key(fmt.Sprintf("%s%08x/%s", evidencePrefix, n, name))
}

// copyEvidence copies what is replaced, and what a compactor would delete for lying
// below the new floor.
func (x *examiner) copyEvidence(ctx context.Context) error {
	if x.root.found() && x.plan.writes(writeRoot) {
		if err := x.keep(ctx, wal.RootKey, x.root.body); err != nil {
			return err
		}
	}
	if x.format.found() && x.plan.writes(writeFormat) {
		if err := x.keep(ctx, wal.FormatKey, x.format.body); err != nil {
			return err
		}
	}
	keys := slices.Concat(x.bad, x.left)
	if x.uncertain {
		for _, seq := range slices.Sorted(maps.Keys(x.listed.slots)) {
			if seq > x.reached.last {
				keys = append(keys, seq.Key())
			}
		}
	}
	if len(keys) > 0 {
		x.o.Progress("copying evidence")
	}
	err := each(ctx, len(keys), func(ctx context.Context, i int) error {
		body, _, err := x.log.Get(ctx, keys[i])
		if errors.Is(err, blob.ErrNotExist) {
			return &ChangedError{string(keys[i])}
		}
		if err != nil {
			return err
		}
		return x.keep(ctx, keys[i], body)
	})
	if err != nil {
		return err
	}
	report, err := json.MarshalIndent(x.plan, "", "  ")
	if err != nil {
		return err
	}
	return x.keep(ctx, reportName, append(report, '\n'))
}

// keep writes evidence. That it is there already is fine if it is the same: the answer
// to the first attempt may have been lost.
func (x *examiner) keep(ctx context.Context, name blob.Key, body []byte) error {
	key := x.evidenceKey(string(name))
	_, err := x.log.Create(ctx, key, body)
	if !errors.Is(err, blob.ErrExist) {
		return err
	}
	if have, _, err := x.log.Get(ctx, key); err != nil {
		return err
	} else if !bytes.Equal(have, body) {
		return &ChangedError{string(key)}
	}
	return nil
}

// newRoot returns the ROOT to be written, but for a snapshot that is to be made.
func (x *examiner) newRoot(ctx context.Context) (wal.Root, error) {
	root, err := wal.NewRoot(x.store, x.o.Env.Rand)
	if err != nil {
		return root, err
	}
	if x.root.sound() {
		nonce := root.Nonce
		root = x.rootSays
		root.Nonce = nonce
		root.Rev++
		root.CompactEpoch++
	} else {
		if root.Rev, err = x.newRev(ctx); err != nil {
			return root, err
		}
		root.CompactEpoch = x.newEpoch()
	}
	root.By, root.At = cmp.Or(x.o.By, "celler recover"), x.o.Env.Now().UTC().Truncate(time.Millisecond)
	root.TailHint, root.Bookmarks = 0, x.bookmarks
	if len(x.bookmarks) == 0 {
		root.Bookmarks = nil
	}
	root.Snapshot = x.base.ref
	root.Doomed = slices.DeleteFunc(slices.Clone(root.Doomed), func(key blob.Key) bool { return key == x.base.ref.Key })
	switch {
	case x.uncertain:
	case x.root.sound():
		root.Floor = max(root.Floor, x.floor)
	case x.base.ref.Seq > 0:
		if root.Floor, err = x.lead(ctx, x.base.ref.Seq, x.base.ref.Digest); err != nil {
			return root, err
		}
	}
	return root, nil
}

// newRev returns a revision above all that ROOT can have had. ROOT cannot change more
// often than once a millisecond, so the bucket's time in milliseconds is above what it
// would have counted to, and above what an earlier recovery took from the same clock.
func (x *examiner) newRev(ctx context.Context) (uint64, error) {
	rev, found := uint64(0), false
	key := x.evidenceKey(reportName)
	for info, err := range x.log.List(ctx, evidencePrefix, "") {
		if err != nil {
			return 0, fmt.Errorf("ask the bucket for the time: %w", err)
		}
		if strings.HasSuffix(string(info.Key), "/REPORT") && !info.ModTime.IsZero() {
			rev = max(rev, uint64(max(0, info.ModTime.UnixMilli())))
		}
		if info.Key == key {
			found = true
			break
		}
	}
	if !found {
		return 0, &BlindError{key}
	}
	// An earlier recovery may have been followed by swaps faster than its clock ran on.
	return rev + 1 + uint64(x.listed.evidence)<<20, nil
}

// newEpoch returns a compaction epoch above all that were claimed.
func (x *examiner) newEpoch() wal.Epoch {
	epoch := wal.Epoch(0)
	for key := range x.listed.tables {
		if e, err := wal.ParseTableKey(key); err == nil {
			epoch = max(epoch, e)
		}
	}
	for i := range x.bases {
		epoch = max(epoch, x.bases[i].snapshot.Epoch)
	}
	return epoch + epochGap
}

// writeRoot puts ROOT in place of what was examined, and of nothing else.
func (x *examiner) writeRoot(ctx context.Context, root wal.Root) error {
	if x.root.sound() {
		if err := wal.CheckTransition(x.rootSays, root); err != nil {
			return err
		}
	}
	if err := x.unchanged(ctx); err != nil {
		return err
	}
	body, err := wal.EncodeRoot(root)
	if err != nil {
		return err
	}
	x.o.Progress("writing ROOT")
	if x.root.found() {
		_, err = x.log.Swap(ctx, wal.RootKey, x.root.tag, body)
	} else {
		_, err = x.log.Create(ctx, wal.RootKey, body)
	}
	if err == nil {
		return nil
	}
	// No answer, or an answer to a repetition: what can be read is what counts.
	now, rerr := wal.ReadRoot(ctx, x.log)
	if rerr == nil && now.Nonce == root.Nonce {
		return nil
	}
	if errors.Is(err, blob.ErrChanged) || errors.Is(err, blob.ErrExist) {
		return &ChangedError{string(wal.RootKey)}
	}
	return fmt.Errorf("write ROOT: %w", err)
}

// unchanged makes sure that nobody has written to the log since.
func (x *examiner) unchanged(ctx context.Context) error {
	late, err := x.late(ctx)
	if len(late) > 0 {
		return &ChangedError{string(late[0].Key())}
	}
	return err
}

// late returns the slots that were written since the bucket was listed. Whoever did so
// may have taken the first gap for the end of the log, or have known the end.
func (x *examiner) late(ctx context.Context) (late []wal.Seq, err error) {
	for _, seq := range []wal.Seq{x.reached.last + 1, x.newest + 1} {
		for ; x.listed.slots[seq].Key == "" && !slices.Contains(late, seq); seq++ {
			s, err := x.readSlot(ctx, seq)
			if err != nil {
				return late, err
			}
			if !s.found() {
				break
			}
			late = append(late, seq)
		}
	}
	return late, nil
}

// overtaken copies slots that were won against the ROOT that was replaced, and means
// nothing if the log goes on where it ended.
func (x *examiner) overtaken(ctx context.Context) (names []string, err error) {
	if !x.uncertain {
		return nil, nil
	}
	late, err := x.late(ctx)
	for _, seq := range late {
		body, _, err := x.log.Get(ctx, seq.Key())
		if err != nil {
			return names, err
		}
		if err := x.keep(ctx, seq.Key(), body); err != nil {
			return names, err
		}
		names = append(names, string(seq.Key()))
	}
	return names, err
}

// writeFormat writes FORMAT last, so that a bucket that has one has a ROOT.
func (x *examiner) writeFormat(ctx context.Context) error {
	profile, err := x.profile(ctx)
	if err != nil {
		return err
	}
	body, err := wal.EncodeFormat(wal.Format{Store: x.store, Profile: profile, Created: x.o.Env.Now().UTC().Truncate(time.Millisecond)})
	if err != nil {
		return err
	}
	x.o.Progress("writing FORMAT")
	if x.format.found() {
		_, err = x.log.Swap(ctx, wal.FormatKey, x.format.tag, body)
	} else {
		_, err = x.log.Create(ctx, wal.FormatKey, body)
	}
	if err == nil {
		return nil
	}
	if now, rerr := wal.ReadFormat(ctx, x.log); rerr == nil && now.Store == x.store && now.Profile == profile {
		return nil
	}
	if errors.Is(err, blob.ErrChanged) || errors.Is(err, blob.ErrExist) {
		return &ChangedError{string(wal.FormatKey)}
	}
	return fmt.Errorf("write FORMAT: %w", err)
}

// removeBad removes snapshots that were copied and cannot be read, which would stop
// every sweep, or that a recovery has left behind. A bucket may refuse.
func (x *examiner) removeBad(ctx context.Context) {
	keys := slices.Concat(x.bad, x.left)
	if len(keys) == 0 {
		return
	}
	if err := x.log.Delete(ctx, keys...); err != nil {
		x.o.Logger.Warn("a snapshot that is of no use could not be deleted", "err", err, "object", string(keys[0]))
	}
}
