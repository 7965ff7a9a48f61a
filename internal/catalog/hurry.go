package catalog

import (
	"context"
	"slices"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// Hurry has the bytes of NARs that no path names be gone from the bucket, as Withdrawal
// does with Purge and with Now, and returns how many of them were not marked so before.
// NARs that a path names, or that are gone, are passed over.
func (c *Catalog) Hurry(ctx context.Context, narHashes [][32]byte, now bool) (changed int, err error) {
	for part := range slices.Chunk(narHashes, opPaths) {
		n := 0
		_, err := c.wal.Commit(ctx, wal.Op{Name: "purge", Cost: len(part) * 64, Build: func(v wal.View) ([]wal.Entry, error) {
			n = 0
			var entries []wal.Entry
			for _, narHash := range part {
				key := keyspace.AppendUnreferencedKey(nil, narHash)
				u, ok, err := read(v, key, keyspace.DecodeUnreferenced)
				if err != nil {
					return nil, err
				}
				if !ok || u.Purge && (u.Now || !now) {
					continue
				}
				u.Purge, u.Now = true, u.Now || now
				entries = append(entries, set(key, keyspace.AppendUnreferenced(nil, &u)))
				n++
			}
			return entries, nil
		}})
		if err != nil {
			return changed, err
		}
		changed += n
	}
	return changed, nil
}
