package wal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/celler/celler/blob"
)

// RootKey names the only object that changes.
const RootKey blob.Key = "ROOT"

const (
	rootVersion  = 1
	maxRootBytes = 16 << 10
	featureZstd  = "zstd"

	snapshotPrefix  = "snap/"
	maxSnapshotName = 40
	// MaxDoomed is how many snapshots may be named at once that are being deleted.
	MaxDoomed = 64
)

// Root is the content of ROOT: where the newest snapshot is, from which slot on
// the log may be read, and who may read and write at all.
//
// A reader ignores fields it does not know; a field that a reader or writer must
// know comes with a new entry in Features or a higher MinReader or MinWriter.
type Root struct {
	Version int     `json:"v"`
	Store   StoreID `json:"store"`
	// Rev counts the changes; Nonce is new with each. Together they make every
	// version of the object, and so its tag, unique.
	Rev      uint64      `json:"rev"`
	Nonce    string      `json:"nonce"`
	Snapshot SnapshotRef `json:"snapshot"`
	// Floor is the first slot that may still be read (I1).
	Floor        Seq   `json:"floor"`
	CompactEpoch Epoch `json:"compact_epoch"`
	// Bookmarks are the slots whose state is kept, by name ([Bookmark]).
	Bookmarks map[string]Seq `json:"bookmarks,omitempty"`
	// Doomed are snapshots that a compactor deletes, or has deleted. They count as gone:
	// what is about to be deleted is named here first, by a swap that notices bookmarks,
	// so that none is set on it.
	Doomed []blob.Key `json:"doomed,omitempty"`
	// MinReader and MinWriter are the lowest protocol versions that may read and
	// commit; Features are names a reader must know.
	MinReader int      `json:"min_reader"`
	MinWriter int      `json:"min_writer"`
	Features  []string `json:"features,omitempty"`
	// TailHint, By and At are for people. Nothing is decided by them (I10).
	TailHint Seq       `json:"tail_hint,omitempty"`
	By       string    `json:"by,omitempty"`
	At       time.Time `json:"at"`
}

// SnapshotRef names a snapshot: the whole state after slot Seq. Seq zero is the
// empty state and has no object.
type SnapshotRef struct {
	Seq    Seq      `json:"seq"`
	Digest Digest   `json:"digest"` // of the object in slot Seq
	Key    blob.Key `json:"key,omitempty"`
	SHA256 Digest   `json:"sha256"` // of the snapshot's own object
	// Epoch is the compaction epoch that installed it. While Root.CompactEpoch is
	// later, a compactor is at work, or gave up.
	Epoch Epoch `json:"epoch,omitempty"`
}

// EncodeRoot returns the object that represents r.
func EncodeRoot(r Root) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("encode ROOT: %w", err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode ROOT: %w", err)
	}
	body = seal(body)
	if len(body)+1 > maxRootBytes {
		return nil, fmt.Errorf("encode ROOT: %d bytes, at most %d", len(body)+1, maxRootBytes)
	}
	return append(body, '\n'), nil
}

// DecodeRoot reads the content of ROOT. It does not ask whether this program may
// read the log.
func DecodeRoot(src []byte) (Root, error) {
	if len(src) > maxRootBytes {
		return Root{}, corrupt(0, "size", fmt.Sprintf("at most %d bytes", maxRootBytes), len(src))
	}
	var v struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(src, &v); err != nil {
		return Root{}, corrupt(0, "content", "a JSON object", err)
	}
	if v.Version > rootVersion {
		return Root{}, &TooNewError{What: "ROOT version", Found: fmt.Sprint(v.Version), Known: fmt.Sprint(rootVersion)}
	}
	if err := checkSeal(src); err != nil {
		return Root{}, err
	}
	var r Root
	if err := json.Unmarshal(src, &r); err != nil {
		return Root{}, corrupt(0, "content", "ROOT's fields", err)
	}
	if err := r.check(); err != nil {
		return Root{}, err
	}
	return r, nil
}

// check reports fields that ROOT cannot have.
func (r *Root) check() error {
	switch {
	case r.Version != rootVersion:
		return corrupt(0, "v", fmt.Sprint(rootVersion), r.Version)
	case r.Store == (StoreID{}):
		return corrupt(0, "store", "a store id", "zeros")
	case r.Rev == 0:
		return corrupt(0, "rev", "a number from 1", 0)
	case r.Nonce == "" || len(r.Nonce) > 64:
		return corrupt(0, "nonce", "1 to 64 characters", len(r.Nonce))
	case r.Floor > r.Snapshot.Seq+1:
		return corrupt(0, "floor", fmt.Sprintf("at most the slot after the snapshot's, %d", r.Snapshot.Seq+1), uint64(r.Floor))
	case (r.Snapshot.Seq == 0) != (r.Snapshot.Key == ""):
		return corrupt(0, "snapshot", "a key with every seq but 0", fmt.Sprintf("seq %d and key %q", r.Snapshot.Seq, r.Snapshot.Key))
	case r.Snapshot.Key != "" && r.Snapshot.Key.Valid() != nil:
		return corrupt(0, "snapshot", "a valid key", r.Snapshot.Key.Valid())
	case r.MinReader < 1 || r.MinWriter < 1:
		return corrupt(0, "min_reader and min_writer", "numbers from 1", fmt.Sprintf("%d and %d", r.MinReader, r.MinWriter))
	case len(r.Bookmarks) > MaxBookmarks:
		return corrupt(0, "bookmarks", fmt.Sprintf("at most %d", MaxBookmarks), len(r.Bookmarks))
	}
	for name, seq := range r.Bookmarks {
		if err := CheckBookmarkName(name); err != nil || seq == 0 {
			return corrupt(0, "bookmarks", "names and slots", fmt.Sprintf("%.60q: %d", name, uint64(seq)))
		}
	}
	return r.checkDoomed()
}

// checkDoomed reports what cannot be about to be deleted.
func (r *Root) checkDoomed() error {
	if len(r.Doomed) > MaxDoomed {
		return corrupt(0, "doomed", fmt.Sprintf("at most %d", MaxDoomed), len(r.Doomed))
	}
	for _, key := range r.Doomed {
		if !strings.HasPrefix(string(key), snapshotPrefix) || len(key) > maxSnapshotName || key == r.Snapshot.Key {
			return corrupt(0, "doomed", "snapshots but the one it names", fmt.Sprintf("%.60q", string(key)))
		}
	}
	return nil
}

// readable reports why this program must not read the log.
func (r *Root) readable() error {
	if r.MinReader > protocolVersion {
		return &TooNewError{What: "ROOT's min_reader", Found: fmt.Sprint(r.MinReader), Known: fmt.Sprint(protocolVersion)}
	}
	for _, f := range r.Features {
		if f != featureZstd {
			return &TooNewError{What: "ROOT feature", Found: fmt.Sprintf("%.40q", f), Known: fmt.Sprintf("%q", featureZstd)}
		}
	}
	return nil
}

// writable reports why this program must not commit.
func (r *Root) writable() error {
	if r.MinWriter > protocolVersion {
		return &TooNewError{What: "ROOT's min_writer", Found: fmt.Sprint(r.MinWriter), Known: fmt.Sprint(protocolVersion)}
	}
	return r.readable()
}

// CheckWriter reports why this program must not change what the log holds: a later
// celler is needed.
func (r *Root) CheckWriter() error { return r.writable() }

// CheckTransition holds I9: it returns a *TransitionError unless ROOT may go from
// old to new in one step. Whoever swaps ROOT asks it first; nobody else has rules
// about ROOT.
func CheckTransition(old, new Root) error {
	bad := func(field string, from, to any) error {
		return &TransitionError{Field: field, Old: fmt.Sprint(from), New: fmt.Sprint(to)}
	}
	if new.Rev != old.Rev+1 {
		return bad("rev", old.Rev, new.Rev)
	}
	if new.Nonce == old.Nonce {
		return bad("nonce", old.Nonce, new.Nonce)
	}
	return checkMonotone(old, new, bad)
}

// checkSuccession is what a reader may ask of two versions that it saw one after
// the other, with any number of changes between them.
func checkSuccession(old, new Root) error {
	bad := func(field string, from, to any) error {
		return fmt.Errorf("%w: ROOT's %s went from %v to %v", ErrRolledBack, field, from, to)
	}
	if new.Rev < old.Rev || new.Rev == old.Rev && new.Nonce != old.Nonce {
		return bad("rev", fmt.Sprintf("%d (%s)", old.Rev, old.Nonce), fmt.Sprintf("%d (%s)", new.Rev, new.Nonce))
	}
	return checkMonotone(old, new, bad)
}

func checkMonotone(old, new Root, bad func(field string, from, to any) error) error {
	switch {
	case new.Version < old.Version:
		return bad("v", old.Version, new.Version)
	case new.Store != old.Store:
		return bad("store", old.Store, new.Store)
	case new.Snapshot.Seq < old.Snapshot.Seq:
		return bad("snapshot seq", uint64(old.Snapshot.Seq), uint64(new.Snapshot.Seq))
	case new.Floor < old.Floor:
		return bad("floor", uint64(old.Floor), uint64(new.Floor))
	case new.CompactEpoch < old.CompactEpoch:
		return bad("compact_epoch", uint64(old.CompactEpoch), uint64(new.CompactEpoch))
	case new.MinReader < old.MinReader:
		return bad("min_reader", old.MinReader, new.MinReader)
	case new.MinWriter < old.MinWriter:
		return bad("min_writer", old.MinWriter, new.MinWriter)
	case new.Snapshot.Seq == old.Snapshot.Seq && new.Snapshot.Digest != old.Snapshot.Digest:
		return bad("snapshot digest", old.Snapshot.Digest, new.Snapshot.Digest)
	}
	for _, f := range old.Features {
		if !slices.Contains(new.Features, f) {
			return bad("features", old.Features, new.Features)
		}
	}
	return nil
}

// ReadRoot returns the content of ROOT.
func ReadRoot(ctx context.Context, bucket blob.Bucket) (Root, error) {
	root, _, err := readRoot(ctx, bucket)
	return root, err
}

func readRoot(ctx context.Context, bucket blob.Bucket) (Root, blob.Tag, error) {
	return readRootIf(ctx, bucket, "")
}

// readRootIf returns blob.ErrUnchanged if ROOT still has tag old.
func readRootIf(ctx context.Context, bucket blob.Bucket, old blob.Tag) (Root, blob.Tag, error) {
	return decodeRoot(bucket.GetIf(ctx, RootKey, old))
}

// decodeRoot makes a Root of the answer to a request for it.
func decodeRoot(body []byte, tag blob.Tag, err error) (Root, blob.Tag, error) {
	if errors.Is(err, blob.ErrUnchanged) {
		return Root{}, tag, blob.ErrUnchanged
	}
	if errors.Is(err, blob.ErrNotExist) {
		err = &LostError{RootKey}
	}
	if err != nil {
		return Root{}, "", fmt.Errorf("read ROOT: %w", err)
	}
	root, err := DecodeRoot(body)
	if err != nil {
		return Root{}, "", named(RootKey, err)
	}
	return root, tag, nil
}
