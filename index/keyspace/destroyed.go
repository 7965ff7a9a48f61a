package keyspace

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Destroyed marks a cache that is gone but whose rows are not all removed yet.
// Nothing can reach them any more; whoever comes by removes some. It also marks a
// cache that is being restored and has not been made visible yet.
type Destroyed struct {
	ID       CacheID // of the key
	Name     CacheName
	At       time.Time
	Building uint32 // store day on which the restore began; 0: it is destroyed
}

// buildingVersion is that of a row with Building.
const buildingVersion = 2

// AppendDestroyedKey appends the key of the row for a cache.
func AppendDestroyedKey(dst []byte, id CacheID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, DestroyedPrefix), uint32(id))
}

// DecodeDestroyedKey returns the id in the key.
func DecodeDestroyedKey(key []byte) (CacheID, error) {
	rest, ok := cutPrefix(key, DestroyedPrefix, 4)
	if !ok || binary.BigEndian.Uint32(rest) == 0 {
		return 0, keyError("destroyed cache", key)
	}
	return CacheID(binary.BigEndian.Uint32(rest)), nil
}

// AppendDestroyed appends the value of d.
func AppendDestroyed(dst []byte, d *Destroyed) []byte {
	if d.Building != 0 {
		dst = binary.AppendUvarint(append(dst, buildingVersion), uint64(d.Building))
	} else {
		dst = append(dst, rowVersion)
	}
	dst = appendTime(dst, d.At)
	return appendText(dst, string(d.Name))
}

// DecodeDestroyed decodes the row of one destroyed cache.
func DecodeDestroyed(key, value []byte) (Destroyed, error) {
	id, err := DecodeDestroyedKey(key)
	if err != nil {
		return Destroyed{}, err
	}
	d := decoder[string]{what: "destroyed cache", src: string(value)}
	row := Destroyed{ID: id}
	if d.versionUpTo(buildingVersion) == buildingVersion {
		row.Building = d.day()
	}
	row.At, row.Name = d.time(), CacheName(d.text())
	if err := d.end(); err != nil {
		return Destroyed{}, err
	}
	if err := row.Name.Valid(); err != nil {
		return Destroyed{}, fmt.Errorf("decode destroyed cache row: %w", err)
	}
	return row, nil
}
