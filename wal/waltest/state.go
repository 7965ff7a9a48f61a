package waltest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"sync"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// State is a wal.State in memory.
type State struct {
	bucket blob.Bucket // where snapshots are; nil if it cannot load any

	mu     sync.Mutex // guards the fields below
	rows   map[string]string
	keys   []string // sorted keys of rows; nil when out of date
	seq    wal.Seq
	digest wal.Digest
	broken error
}

var _ wal.State = (*State)(nil)

// NewState returns an empty state. It loads snapshots from bucket, if there is one.
func NewState(bucket blob.Bucket) *State {
	return &State{bucket: bucket, rows: make(map[string]string)}
}

// Break makes Apply return err from now on, or heals it with nil.
func (s *State) Break(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

// Get implements wal.View.
func (s *State) Get(key []byte) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.rows[string(key)]
	if !ok {
		return nil, false, nil
	}
	return []byte(v), true, nil
}

// Scan implements wal.View. It sees the state as it was when the scan began.
func (s *State) Scan(prefix, after []byte) iter.Seq2[wal.KV, error] {
	return func(yield func(wal.KV, error) bool) {
		for _, kv := range s.snapshot(string(prefix), after) {
			if !yield(kv, nil) {
				return
			}
		}
	}
}

func (s *State) snapshot(prefix string, after []byte) []wal.KV {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sort()
	var kvs []wal.KV
	for i := sort.SearchStrings(s.keys, max(prefix, string(after))); i < len(s.keys); i++ {
		key := s.keys[i]
		if !bytes.HasPrefix([]byte(key), []byte(prefix)) {
			break
		}
		if after != nil && key == string(after) {
			continue
		}
		kvs = append(kvs, wal.KV{Key: []byte(key), Value: []byte(s.rows[key])})
	}
	return kvs
}

func (s *State) sort() {
	if s.keys != nil {
		return
	}
	s.keys = make([]string, 0, len(s.rows))
	for key := range s.rows {
		s.keys = append(s.keys, key)
	}
	slices.Sort(s.keys)
}

// Position implements wal.State.
func (s *State) Position() (wal.Seq, wal.Digest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq, s.digest, nil
}

// Session implements wal.State.
func (s *State) Session(w wal.WriterID) (uint64, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.rows[string(wal.SessionKey(w))]
	if !ok {
		return 0, false, nil
	}
	batch, err := wal.DecodeUint64([]byte(v))
	return batch, err == nil, err
}

// Apply implements wal.State.
func (s *State) Apply(seg *wal.Segment, digest wal.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	for _, e := range seg.Entries {
		switch e.Kind {
		case wal.Set:
			s.rows[string(e.Key)] = string(e.Value)
		case wal.Delete:
			delete(s.rows, string(e.Key))
		case wal.DeleteRange:
			for key := range s.rows {
				if key >= string(e.Key) && key < string(e.Value) {
					delete(s.rows, key)
				}
			}
		}
	}
	s.rows[string(wal.SessionKey(seg.Writer))] = string(wal.AppendUint64(nil, seg.Batch))
	s.seq, s.digest, s.keys = seg.Seq, digest, nil
	return nil
}

// Dump returns all rows but the bookkeeping, sorted, one "key=value" a line.
func (s *State) Dump() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sort()
	var out bytes.Buffer
	for _, key := range s.keys {
		if key[0] != '!' {
			fmt.Fprintf(&out, "%s=%s\n", key, s.rows[key])
		}
	}
	return out.String()
}

// Clone returns a copy: what a replica that is killed leaves on its disk.
func (s *State) Clone() *State {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := NewState(s.bucket)
	for k, v := range s.rows {
		c.rows[k] = v
	}
	c.seq, c.digest = s.seq, s.digest
	return c
}

// snapshotObject is what a snapshot of a State holds.
type snapshotObject struct {
	Seq    wal.Seq           `json:"seq"`
	Digest wal.Digest        `json:"digest"`
	Rows   map[string][]byte `json:"rows"`
}

// ErrNoSnapshot is what Reset returns if the State cannot load the snapshot.
var ErrNoSnapshot = errors.New("this state loads no snapshots")

// Reset implements wal.State: it loads what Snapshot wrote.
func (s *State) Reset(ctx context.Context, root wal.Root) error {
	loaded := snapshotObject{Rows: map[string][]byte{}}
	if root.Snapshot.Seq != 0 {
		if s.bucket == nil {
			return ErrNoSnapshot
		}
		body, _, err := s.bucket.Get(ctx, root.Snapshot.Key)
		if err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		if err := json.Unmarshal(body, &loaded); err != nil {
			return fmt.Errorf("decode snapshot: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows, s.keys = make(map[string]string), nil
	for k, v := range loaded.Rows {
		s.rows[k] = string(v)
	}
	s.seq, s.digest = loaded.Seq, loaded.Digest
	return nil
}

// Snapshot writes the state to the bucket and returns what ROOT is to say of it.
func (s *State) Snapshot(ctx context.Context, bucket blob.Bucket) (wal.SnapshotRef, error) {
	s.mu.Lock()
	object := snapshotObject{Seq: s.seq, Digest: s.digest, Rows: map[string][]byte{}}
	for k, v := range s.rows {
		object.Rows[k] = []byte(v)
	}
	s.mu.Unlock()

	body, err := json.Marshal(object)
	if err != nil {
		return wal.SnapshotRef{}, fmt.Errorf("encode snapshot: %w", err)
	}
	sum := wal.DigestOf(body)
	ref := wal.SnapshotRef{
		Seq: object.Seq, Digest: object.Digest, SHA256: sum,
		Key: blob.Key(fmt.Sprintf("snap/%v.%x", object.Seq, sum[:4])),
	}
	// The name is a function of the bytes, so an occupied one has our bytes.
	if _, err := bucket.Create(ctx, ref.Key, body); err != nil && !errors.Is(err, blob.ErrExist) {
		return wal.SnapshotRef{}, fmt.Errorf("write snapshot: %w", err)
	}
	return ref, nil
}

// Truncate makes snapshot the newest one, raises the floor to it, and deletes the
// slots below the floor that were not deleted before, in this order (I2). It is a
// compactor in miniature; several may run at once.
func Truncate(ctx context.Context, bucket blob.Bucket, change wal.RootChange, snapshot wal.SnapshotRef) error {
	var below wal.Seq
	root, err := change.Swap(ctx, bucket, func(r *wal.Root) error {
		below = max(r.Floor, 1)
		if r.Snapshot.Seq < snapshot.Seq {
			r.Snapshot = snapshot
		}
		return nil
	})
	if err != nil {
		return err
	}
	root, err = change.Swap(ctx, bucket, func(r *wal.Root) error {
		r.Floor = max(r.Floor, root.Snapshot.Seq)
		return nil
	})
	if err != nil {
		return err
	}
	for seq := below; seq < root.Floor; seq++ {
		if err := bucket.Delete(ctx, seq.Key()); err != nil {
			return fmt.Errorf("truncate slot %v: %w", seq, err)
		}
	}
	return nil
}
