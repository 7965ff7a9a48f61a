package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/wal"
)

// Options tune an examination. The zero value works, but for Dir.
type Options struct {
	Env     wal.Env
	By      string       // stands in ROOT and in what is written, for people
	Logger  *slog.Logger // nil: discard
	Profile string       // chunk profile of a FORMAT that is made anew; "": found out
	// Salvage uses all that can be read, instead of what is proven to belong together.
	Salvage bool
	// Seen is a slot of which somebody knows that it was filled, a server perhaps that
	// had applied it. If the log does not reach it, slots are lost.
	Seen wal.Seq
	// Quick does not read tables, but believes what a listing says of them.
	Quick bool
	// Dir is a directory for a state that must be put together. It is made below it,
	// and removed.
	Dir string
	// Index tunes the index in which it is put together.
	Index index.Options
	// Progress, if not nil, is told what is being done.
	Progress func(doing string)
}

func (o Options) withDefaults() Options {
	o.Env = o.Env.WithDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

// Finding is something wrong with one object, or with several slots.
type Finding struct {
	Object  string `json:"object"`
	Problem string `json:"problem"`
}

// Loss is something that cannot come back.
type Loss struct {
	What   string `json:"what"`
	Detail string `json:"detail,omitempty"`
}

// Plan says what is wrong with a bucket and what would be done about it.
type Plan struct {
	Store    string    `json:"store"`
	Findings []Finding `json:"findings"`
	Losses   []Loss    `json:"losses"`

	// Write names what would be written: "ROOT", "FORMAT", "state".
	Write []string `json:"write"`
	// Snapshot and Slots say what the state would be made of: the snapshot of a slot (0:
	// none), and the slots from First to Last behind it.
	Snapshot uint64 `json:"snapshot"`
	First    uint64 `json:"first_slot"`
	Last     uint64 `json:"last_slot"`
	// Next is the slot at which the log would go on.
	Next     uint64 `json:"next_slot"`
	Salvage  bool   `json:"salvage,omitempty"`
	Adopt    bool   `json:"adopt_packs,omitempty"` // packs are looked for
	Evidence string `json:"evidence,omitempty"`
	// Read counts the bytes of tables that were hashed.
	Read int64 `json:"bytes_read"`

	x *examiner
}

// Sound reports whether there is nothing to be done.
func (p *Plan) Sound() bool { return len(p.Write) == 0 }

// writes reports whether the plan writes something.
func (p *Plan) writes(what string) bool { return slices.Contains(p.Write, what) }

// examiner is one examination, and the execution of its plan.
type examiner struct {
	o         Options
	log, data blob.Bucket
	plan      *Plan
	listed    *listed
	bytes     atomic.Int64
	checked   map[blob.Key]string // what is wrong with a table, "" for nothing

	store      wal.StoreID
	format     object
	formatSays wal.Format
	root       object
	rootSays   wal.Root

	bases []candidate // snapshots that decode, newest first
	bad   []blob.Key  // snapshots that do not
	left  []blob.Key  // snapshots that a recovery has left behind

	base      candidate // chosen; its snapshot is nil for the empty state
	reached   chain     // behind base
	newest    wal.Seq   // the highest slot of which there is a trace
	top       wal.Seq   // that, or the slot of a snapshot that a recovery has left behind
	uncertain bool      // slots are lost, or may be
	floor     wal.Seq   // to be raised to; 0: as it is
	bookmarks map[string]wal.Seq
}

// candidate is a snapshot that could be begun from.
type candidate struct {
	ref      wal.SnapshotRef
	snapshot *wal.Snapshot
}

// Examine looks at a bucket, or at the two in which log and packs are, and returns what
// is wrong and what could be done about it. It writes nothing. An error says nothing
// about the bucket's state, but for a *wal.TooNewError: it is not ours to repair.
func Examine(ctx context.Context, log, data blob.Bucket, o Options) (*Plan, error) {
	for attempt := 1; ; attempt++ {
		x := &examiner{o: o.withDefaults(), log: log, data: data, checked: map[blob.Key]string{}}
		x.plan = &Plan{Findings: []Finding{}, Losses: []Loss{}, Write: []string{}, x: x}
		err := x.run(ctx)
		_, fickle := errors.AsType[*FickleError](err)
		if attempt < attempts && (fickle || x.moved(ctx)) {
			continue // somebody may be at work: servers append, compactors replace
		}
		if err != nil {
			return nil, fmt.Errorf("examine the bucket: %w", err)
		}
		x.plan.Read = x.bytes.Load()
		return x.plan, nil
	}
}

// attempts is how often a bucket is examined that changes meanwhile.
const attempts = 5

func (x *examiner) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{x.lookAround, x.identify, x.disown, x.readSnapshots, x.choose, x.weigh, x.keepBookmarks, x.decide, x.lookAgain} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// moved reports whether ROOT is sound, and another than it was.
func (x *examiner) moved(ctx context.Context) bool {
	now, err := wal.ReadRoot(ctx, x.log)
	return err == nil && (!x.root.sound() || now.Nonce != x.rootSays.Nonce)
}

func (x *examiner) finding(object any, format string, args ...any) {
	x.plan.Findings = append(x.plan.Findings, Finding{Object: fmt.Sprint(object), Problem: fmt.Sprintf(format, args...)})
}

func (x *examiner) loss(what, format string, args ...any) {
	x.plan.Losses = append(x.plan.Losses, Loss{What: what, Detail: fmt.Sprintf(format, args...)})
}

// NothingError reports a place in which there is nothing of a store.
type NothingError struct{}

func (*NothingError) Error() string { return "there is nothing of celler's in it" }

// lookAround lists the bucket and reads FORMAT and ROOT.
func (x *examiner) lookAround(ctx context.Context) (err error) {
	x.o.Progress("listing the bucket")
	if x.listed, err = list(ctx, x.log); err != nil {
		return err
	}
	x.format, err = x.read(ctx, wal.FormatKey, func(body []byte) (err error) {
		x.formatSays, err = wal.DecodeFormat(body)
		return err
	})
	if err != nil {
		return err
	}
	x.root, err = x.read(ctx, wal.RootKey, func(body []byte) (err error) {
		x.rootSays, err = wal.DecodeRoot(body)
		return err
	})
	if err != nil {
		return err
	}
	x.note(wal.FormatKey, &x.format)
	x.note(wal.RootKey, &x.root)
	if x.root.sound() {
		return x.rootSays.CheckWriter()
	}
	return nil
}

// note makes a finding of an object that is not sound.
func (x *examiner) note(key blob.Key, o *object) {
	switch {
	case o.absent:
		x.finding(key, "missing")
	case o.damage != nil:
		x.finding(key, "damaged: %v", o.damage)
	}
}

// identify finds out which store this is. All that says so must say the same.
func (x *examiner) identify(ctx context.Context) error {
	say := func(key blob.Key, store wal.StoreID) error {
		if x.store != (wal.StoreID{}) && x.store != store {
			return &wal.ForeignError{Key: key, Store: store, Own: x.store}
		}
		x.store = store
		return nil
	}
	if x.format.sound() {
		x.store = x.formatSays.Store
	}
	if x.root.sound() {
		if err := say(wal.RootKey, x.rootSays.Store); err != nil {
			return err
		}
	}
	if x.store == (wal.StoreID{}) {
		if err := x.askObjects(ctx, say); err != nil {
			return err
		}
	}
	if x.store == (wal.StoreID{}) {
		return x.newStore(ctx)
	}
	x.plan.Store = x.store.String()
	return nil
}

// askObjects asks a few snapshots and slots which store they are of.
func (x *examiner) askObjects(ctx context.Context, say func(blob.Key, wal.StoreID) error) error {
	const asked = 8
	for i := range min(asked, len(x.listed.snapshots)) {
		key := x.listed.snapshots[len(x.listed.snapshots)-1-i].Key
		var s *wal.Snapshot
		o, err := x.read(ctx, key, func(body []byte) (err error) { s, err = wal.DecodeSnapshot(body); return err })
		if err != nil {
			return err
		}
		if o.sound() {
			if err := say(key, s.Store); err != nil {
				return err
			}
		}
	}
	n := 0
	for seq := range x.listed.slots {
		var s *wal.Segment
		o, err := x.read(ctx, seq.Key(), func(body []byte) (err error) { s, _, err = wal.DecodeSegment(body); return err })
		if err != nil {
			return err
		}
		if o.sound() {
			if err := say(seq.Key(), s.Store); err != nil {
				return err
			}
		}
		if n++; n == asked {
			break
		}
	}
	return nil
}

// newStore is the last resort: packs are all there is. They do not say of which store
// they are, so it becomes a new one.
func (x *examiner) newStore(ctx context.Context) error {
	packs, err := x.hasPacks(ctx)
	if err != nil {
		return err
	}
	if !packs && !x.format.found() && !x.root.found() && len(x.listed.slots)+len(x.listed.snapshots) == 0 {
		return &NothingError{}
	}
	var id wal.StoreID
	root, err := wal.NewRoot(wal.StoreID{1}, x.o.Env.Rand) // for its nonce
	if err != nil {
		return err
	}
	sum := wal.DigestOf([]byte("celler store " + root.Nonce + x.o.Env.Now().UTC().Format(time.RFC3339Nano)))
	copy(id[:], sum[:])
	x.store = id
	x.plan.Store = id.String()
	x.loss("the identity of the store", "nothing that can be read says which it was; it becomes %v", id)
	return nil
}
