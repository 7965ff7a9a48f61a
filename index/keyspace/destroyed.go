package keyspace

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Destroyed marks a cache that is gone but whose path rows are not all removed
// yet. Nothing can reach them any more; whoever comes by removes some.
type Destroyed struct {
	ID   CacheID // of the key
	Name CacheName
	At   time.Time
}

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
	dst = append(dst, rowVersion)
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
	d.version()
	row := Destroyed{ID: id, At: d.time(), Name: CacheName(d.text())}
	if err := d.end(); err != nil {
		return Destroyed{}, err
	}
	if err := row.Name.Valid(); err != nil {
		return Destroyed{}, fmt.Errorf("decode destroyed cache row: %w", err)
	}
	return row, nil
}
