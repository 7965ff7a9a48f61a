package wal

import "time"

// RootKey names the only object that changes.
const RootKey = "ROOT"

// Root is the content of ROOT: where the newest snapshot is, from which slot on
// the log may be read, and who may read and write at all.
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
	Seq    Seq    `json:"seq"`
	Digest Digest `json:"digest"` // of the object in slot Seq
	Key    string `json:"key,omitempty"`
	SHA256 Digest `json:"sha256"` // of the snapshot's manifest
}
