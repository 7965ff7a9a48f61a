package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob"
)

// These constants are part of the format of snapshots and must not be changed.
const (
	snapshotMagic     = "CLM1"
	snapshotVersion   = 1
	snapshotHeaderLen = 12

	// maxSnapshotPlain bounds the memory a snapshot may unpack to: at about 500
	// bytes a table it is an index of more than a terabyte.
	maxSnapshotPlain = 32 << 20
	maxSnapshotSize  = snapshotHeaderLen + maxSnapshotPlain + 64<<10
)

// Snapshot is the content of a snapshot's object: the whole state after slot Seq,
// as runs of tables. The object is the magic "CLM1", a version (2 B), flags (2 B,
// zero), the length of the plain text (4 B) and one zstd frame with this struct as
// JSON. It is written once.
//
// A table holds what a stretch of the log did to the keys of one shard, not what
// they were before it, so a key is looked up in the runs of its shard from the
// newest on; what is said first counts. The package compact writes tables and
// snapshots, index loads them.
type Snapshot struct {
	Store  StoreID `json:"store"`
	Seq    Seq     `json:"seq"`
	Digest Digest  `json:"digest"` // of the object in slot Seq
	// Epoch is the compaction epoch that wrote the object. Once ROOT has a later
	// one, nobody can install the snapshot any more.
	Epoch Epoch     `json:"epoch"`
	By    string    `json:"by,omitempty"`
	At    time.Time `json:"at"`
	// Runs are sorted by shard, and within a shard newest first.
	Runs []Run `json:"runs"`
}

// Run is what slots First to Last, both inclusive, did to the keys of one shard, in
// tables that are sorted and disjoint.
type Run struct {
	Shard  Shard   `json:"shard"`
	First  Seq     `json:"first"`
	Last   Seq     `json:"last"`
	Tables []Table `json:"tables"`
}

// Bytes is the size of the run's tables.
func (r *Run) Bytes() (n int64) {
	for i := range r.Tables {
		n += r.Tables[i].Size
	}
	return n
}

// Table names one table of a snapshot: a Pebble sstable with the point keys and
// range deletions of a part of a run.
type Table struct {
	Key    blob.Key `json:"key"`
	Size   int64    `json:"size"`
	SHA256 Digest   `json:"sha256"`
	// No key outside of Smallest to Largest is in the table; Largest itself may be
	// the end, exclusive, of a range deletion.
	Smallest []byte `json:"smallest"`
	Largest  []byte `json:"largest"`
	Sets     int64  `json:"sets"`
	Deletes  int64  `json:"deletes"`
	Ranges   int64  `json:"ranges,omitempty"` // range deletions
	Sum      Sum    `json:"sum"`              // over sets and deletes
}

// Shard is a fixed part of the key space: the first byte of a key and the upper
// half of the second. Runs never span two, so each shard is merged by itself.
type Shard uint16

// ShardOf returns the shard of a key.
func ShardOf(key []byte) Shard {
	var s Shard
	if len(key) > 0 {
		s = Shard(key[0]) << 4
	}
	if len(key) > 1 {
		s |= Shard(key[1] >> 4)
	}
	return s
}

// Start returns the first key that can be in the shard.
func (s Shard) Start() []byte {
	if s&0xf == 0 {
		return []byte{byte(s >> 4)}
	}
	return []byte{byte(s >> 4), byte(s&0xf) << 4}
}

// End returns the first key after all of the shard; nil after the last shard.
func (s Shard) End() []byte {
	if s >= 0xfff {
		return nil
	}
	return (s + 1).Start()
}

func (s Shard) String() string { return fmt.Sprintf("%03x", uint16(s)) }

// MarshalText writes three hexadecimal digits.
func (s Shard) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads three hexadecimal digits.
func (s *Shard) UnmarshalText(text []byte) error {
	var b [2]byte
	if len(text) != 3 {
		return fmt.Errorf("parse shard %.40q: want 3 hexadecimal digits", text)
	}
	if _, err := hex.Decode(b[:], append([]byte("0"), text...)); err != nil {
		return fmt.Errorf("parse shard %q: %w", text, err)
	}
	*s = Shard(binary.BigEndian.Uint16(b[:]))
	return nil
}

// AppendSnapshot appends the object that represents s.
func AppendSnapshot(dst []byte, s *Snapshot) ([]byte, error) {
	if err := s.check(); err != nil {
		return dst, fmt.Errorf("append snapshot %v: %w", s.Seq, err)
	}
	plain, err := json.Marshal(s)
	if err != nil {
		return dst, fmt.Errorf("append snapshot %v: %w", s.Seq, err)
	}
	if len(plain) > maxSnapshotPlain {
		return dst, fmt.Errorf("append snapshot %v: %d bytes, more than %d", s.Seq, len(plain), maxSnapshotPlain)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return dst, fmt.Errorf("append snapshot %v: %w", s.Seq, err)
	}
	dst = append(dst, snapshotMagic...)
	dst = binary.BigEndian.AppendUint16(dst, snapshotVersion)
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(plain)))
	return enc.EncodeAll(plain, dst), nil
}

// DecodeSnapshot reads a whole object. Errors are a *CorruptError or a *TooNewError.
func DecodeSnapshot(src []byte) (*Snapshot, error) {
	if len(src) < snapshotHeaderLen || len(src) > maxSnapshotSize {
		return nil, corrupt(0, "size", fmt.Sprintf("%d to %d bytes", snapshotHeaderLen, maxSnapshotSize), len(src))
	}
	if string(src[:4]) != snapshotMagic {
		return nil, corrupt(0, "magic", fmt.Sprintf("%q", snapshotMagic), fmt.Sprintf("%q", src[:4]))
	}
	if v := binary.BigEndian.Uint16(src[4:]); v != snapshotVersion {
		return nil, &TooNewError{What: "snapshot version", Found: fmt.Sprint(v), Known: fmt.Sprint(snapshotVersion)}
	}
	if flags := binary.BigEndian.Uint16(src[6:]); flags != 0 {
		return nil, &TooNewError{What: "snapshot flags", Found: fmt.Sprintf("%#x", flags), Known: "0"}
	}
	plainLen := binary.BigEndian.Uint32(src[8:])
	if plainLen > maxSnapshotPlain {
		return nil, corrupt(8, "plain length", fmt.Sprintf("at most %d", maxSnapshotPlain), plainLen)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSnapshotPlain))
	if err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(src[snapshotHeaderLen:], nil)
	if err != nil {
		return nil, corrupt(snapshotHeaderLen, "body", "a zstd frame", err)
	}
	if len(plain) != int(plainLen) {
		return nil, corrupt(8, "plain length", fmt.Sprint(plainLen), len(plain))
	}
	var s Snapshot
	if err := json.Unmarshal(plain, &s); err != nil {
		return nil, corrupt(snapshotHeaderLen, "body", "a snapshot's fields", err)
	}
	if err := s.check(); err != nil {
		return nil, corrupt(snapshotHeaderLen, "body", "a snapshot that can be", err)
	}
	return &s, nil
}

// check reports what a snapshot cannot have.
func (s *Snapshot) check() error {
	if s.Store == (StoreID{}) || s.Seq == 0 || s.Digest == (Digest{}) || s.Epoch == 0 {
		return fmt.Errorf("store, seq, digest and epoch must be set")
	}
	for i := range s.Runs {
		r := &s.Runs[i]
		if r.First == 0 || r.First > r.Last || r.Last > s.Seq || len(r.Tables) == 0 {
			return fmt.Errorf("run %d: slots %v to %v, %d tables", i, r.First, r.Last, len(r.Tables))
		}
		if i > 0 {
			prev := &s.Runs[i-1]
			if prev.Shard > r.Shard || prev.Shard == r.Shard && prev.First <= r.Last {
				return fmt.Errorf("run %d: shard %v, slots %v to %v, after shard %v, slots %v to %v",
					i, r.Shard, r.First, r.Last, prev.Shard, prev.First, prev.Last)
			}
		}
		if err := r.check(s.Epoch); err != nil {
			return fmt.Errorf("run %d: %w", i, err)
		}
	}
	return nil
}

func (r *Run) check(epoch Epoch) error {
	end := r.Shard.End()
	for i := range r.Tables {
		t := &r.Tables[i]
		e, err := ParseTableKey(t.Key)
		switch {
		case err != nil:
			return err
		case e == 0 || e > epoch:
			return fmt.Errorf("table %s is of a later epoch than %v", t.Key, epoch)
		case t.Size <= 0 || t.Sets < 0 || t.Deletes < 0 || t.Ranges < 0 || t.Sets+t.Deletes+t.Ranges == 0:
			return fmt.Errorf("table %s has %d bytes, %d sets, %d deletes, %d ranges", t.Key, t.Size, t.Sets, t.Deletes, t.Ranges)
		case bytes.Compare(t.Smallest, r.Shard.Start()) < 0, bytes.Compare(t.Smallest, t.Largest) > 0,
			end != nil && bytes.Compare(t.Largest, end) > 0:
			return fmt.Errorf("table %s has keys %x to %x, shard %v", t.Key, t.Smallest, t.Largest, r.Shard)
		case i > 0 && bytes.Compare(r.Tables[i-1].Largest, t.Smallest) > 0:
			return fmt.Errorf("tables %s and %s overlap", r.Tables[i-1].Key, t.Key)
		}
	}
	return nil
}

// TableKey names a table: the compaction epoch that wrote it, and a random number.
func TableKey(epoch Epoch, rand uint64) blob.Key {
	return blob.Key(fmt.Sprintf("tab/%v/%016x.sst", epoch, rand))
}

// ParseTableKey returns the compaction epoch in the name of a table.
func ParseTableKey(key blob.Key) (Epoch, error) {
	epoch, name, _ := strings.Cut(strings.TrimPrefix(string(key), "tab/"), "/")
	e, err := strconv.ParseUint(epoch, 16, 64)
	random, rerr := strconv.ParseUint(strings.TrimSuffix(name, ".sst"), 16, 64)
	if err != nil || rerr != nil || string(key) != fmt.Sprintf("tab/%v/%016x.sst", Epoch(e), random) {
		return 0, fmt.Errorf("parse name of table %.80q: want tab/EPOCH/RANDOM.sst", string(key))
	}
	return Epoch(e), nil
}

// SnapshotKey names a snapshot: its slot and a random number.
func SnapshotKey(seq Seq, rand uint32) blob.Key {
	return blob.Key(fmt.Sprintf("snap/%v.%08x", seq, rand))
}

// ReadSnapshot returns the snapshot that ref names, verified against it. The error
// is blob.ErrNotExist if it is gone, as it may be once ROOT names another.
func ReadSnapshot(ctx context.Context, bucket blob.Bucket, store StoreID, ref SnapshotRef) (*Snapshot, error) {
	body, _, err := bucket.Get(ctx, ref.Key)
	if err != nil {
		return nil, fmt.Errorf("read snapshot of slot %v: %w", ref.Seq, err)
	}
	if sum := DigestOf(body); sum != ref.SHA256 {
		return nil, named(ref.Key, corrupt(0, "SHA-256", ref.SHA256.String(), sum))
	}
	s, err := DecodeSnapshot(body)
	switch {
	case err != nil:
		return nil, named(ref.Key, err)
	case s.Store != store:
		return nil, &ForeignError{Key: ref.Key, Store: s.Store, Own: store}
	case s.Seq != ref.Seq || s.Digest != ref.Digest:
		return nil, named(ref.Key, corrupt(snapshotHeaderLen, "seq and digest", fmt.Sprintf("%v %v", ref.Seq, ref.Digest), fmt.Sprintf("%v %v", s.Seq, s.Digest)))
	}
	return s, nil
}
