package catalog

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/celler/celler/index/keyspace"
)

// Moment is what a restore holds on to of a cache beyond the rows that it changes: what
// pins there were, and that nothing has gone since.
type Moment struct {
	day     uint32
	removed int64 // paths, on that day and after it
	pins    [sha256.Size]byte
}

// Moment returns that of a cache in the snapshot.
func (s *Snapshot) Moment(id CacheID) (Moment, error) {
	day, err := counter(s.view, keyspace.OpenDay)
	if err != nil {
		return Moment{}, err
	}
	return momentOf(s.view, id, day)
}

// momentOf returns the moment of a cache in a state, with what was removed from the given
// day on.
func momentOf(v scanner, id CacheID, from uint32) (Moment, error) {
	m := Moment{day: from}
	open, err := counter(v, keyspace.OpenDay)
	if err != nil {
		return m, err
	}
	for day := from; day <= open; day++ {
		g, _, err := read(v, keyspace.AppendGrowthKey(nil, day, id), keyspace.DecodeGrowth)
		if err != nil {
			return m, err
		}
		m.removed += g.RemovedPaths
	}
	var pins []byte
	for row, err := range v.Scan(keyspace.AppendPinPrefix(nil, id), nil) {
		if err != nil {
			return m, err
		}
		for _, part := range [][]byte{row.Key, row.Value} {
			pins = append(binary.AppendUvarint(pins, uint64(len(part))), part...)
		}
	}
	m.pins = sha256.Sum256(pins)
	return m, nil
}
