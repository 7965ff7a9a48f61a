package wal

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/celler/celler/blob"
)

// Seq numbers a slot of the log. The first slot is 1; zero means "before the
// first slot".
type Seq uint64

// String returns the fixed-width hexadecimal form that names the slot's object.
func (s Seq) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// AppendText appends the form of String.
func (s Seq) AppendText(dst []byte) ([]byte, error) { return append(dst, s.String()...), nil }

// ParseSeq reads the form that String writes.
func ParseSeq(text string) (Seq, error) {
	n, err := strconv.ParseUint(text, 16, 64)
	if err != nil || len(text) != 16 {
		return 0, fmt.Errorf("parse slot %q: want 16 hexadecimal digits", text)
	}
	return Seq(n), nil
}

// Key names the object that fills the slot.
func (s Seq) Key() blob.Key { return blob.Key("log/" + s.String()) }

// Epoch is a number that makes the late work of an earlier holder void. Here it
// is always the compaction epoch.
type Epoch uint64

// String returns the hexadecimal form used in names of tables.
func (e Epoch) String() string { return fmt.Sprintf("%08x", uint64(e)) }

// Digest is the SHA-256 of a whole object. The zero Digest stands for "no
// object": it precedes slot 1.
type Digest [32]byte

// DigestOf returns the digest of a whole object.
func DigestOf(object []byte) Digest { return sha256.Sum256(object) }

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// AppendText appends 64 lower-case hexadecimal digits.
func (d Digest) AppendText(dst []byte) ([]byte, error) { return hex.AppendEncode(dst, d[:]), nil }

// MarshalText is AppendText for encoding/json.
func (d Digest) MarshalText() ([]byte, error) { return d.AppendText(nil) }

// UnmarshalText reads 64 hexadecimal digits.
func (d *Digest) UnmarshalText(text []byte) error { return unhex("digest", d[:], text) }

// StoreID tells the logs of different buckets apart. It is drawn at random when
// a bucket is founded and stands in FORMAT, in ROOT and in every segment.
type StoreID [16]byte

func (id StoreID) String() string { return hex.EncodeToString(id[:]) }

// AppendText appends 32 lower-case hexadecimal digits.
func (id StoreID) AppendText(dst []byte) ([]byte, error) { return hex.AppendEncode(dst, id[:]), nil }

// MarshalText is AppendText for encoding/json.
func (id StoreID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText reads 32 hexadecimal digits.
func (id *StoreID) UnmarshalText(text []byte) error { return unhex("store id", id[:], text) }

// ParseStoreID reads the form that String writes.
func ParseStoreID(text string) (StoreID, error) {
	var id StoreID
	err := id.UnmarshalText([]byte(text))
	return id, err
}

// WriterID names one writer: one run of one process, or less, because a writer
// that was fenced goes on under a new id. Batches are numbered per writer.
type WriterID [16]byte

func (w WriterID) String() string { return hex.EncodeToString(w[:]) }

// AppendText appends 32 lower-case hexadecimal digits.
func (w WriterID) AppendText(dst []byte) ([]byte, error) { return hex.AppendEncode(dst, w[:]), nil }

// ParseWriterID reads the form that String writes.
func ParseWriterID(text string) (WriterID, error) {
	var w WriterID
	err := unhex("writer id", w[:], []byte(text))
	return w, err
}

func unhex(what string, dst, text []byte) error {
	if len(text) != 2*len(dst) {
		return fmt.Errorf("parse %s %.80q: want %d hexadecimal digits", what, text, 2*len(dst))
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return fmt.Errorf("parse %s %q: %w", what, text, err)
	}
	return nil
}

// The state's own bookkeeping lives under keys that begin with '!'. A State
// writes them itself while it applies a segment; operations may not, except for
// deleting the session of a writer that has been silent for long.
const reservedPrefix = '!'

const sessionPrefix = "!session/"

// SeqKey, DigestKey and SessionKey name the three rows a State that keeps its
// bookkeeping among the entries should use: `celler log show` prints them so.
const (
	SeqKey    = "!seq"
	DigestKey = "!digest"
)

// SessionKey returns the key of the row that remembers the last applied batch of w.
func SessionKey(w WriterID) []byte { return append([]byte(sessionPrefix), w.String()...) }

// AppendUint64 and Uint64 are the encoding of the numbers in bookkeeping rows.
func AppendUint64(dst []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(dst, n) }

// DecodeUint64 reads what AppendUint64 wrote.
func DecodeUint64(src []byte) (uint64, error) {
	if len(src) != 8 {
		return 0, fmt.Errorf("decode number: want 8 bytes, have %d", len(src))
	}
	return binary.BigEndian.Uint64(src), nil
}
