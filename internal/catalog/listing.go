package catalog

import (
	"slices"

	"github.com/celler/celler/index/keyspace"
)

// MaxListingBytes bounds Publication.Listing.
const MaxListingBytes = keyspace.MaxListingBytes

// Listing returns what is in a NAR, compressed, if that is kept. It reads the index only: what is
// not there can be found out from the NAR.
func (c *Catalog) Listing(narHash [32]byte) (zstd []byte, ok bool, err error) {
	key := keyspace.AppendListingKey(nil, narHash)
	ok, err = c.db.Lookup(key, func(value []byte) error {
		l, err := keyspace.DecodeListing(key, value)
		zstd = slices.Clone(l.Zstd)
		return err
	})
	return zstd, ok && err == nil, err
}

// keepListing writes the listing that came with a publication, unless there is one: a NAR
// has only one.
func (u *publishing) keepListing(b *books) error {
	if len(u.Listing) == 0 {
		return nil
	}
	key := keyspace.AppendListingKey(nil, u.Path.NarHash)
	if _, there, err := b.view.Get(key); there || err != nil {
		return err
	}
	b.put(key, keyspace.AppendListing(nil, &keyspace.Listing{NarHash: u.Path.NarHash, Zstd: u.Listing}))
	return nil
}

// dropListing removes the listing of a NAR.
func (b *books) dropListing(narHash [32]byte) error {
	key := keyspace.AppendListingKey(nil, narHash)
	_, there, err := b.view.Get(key)
	if there && err == nil {
		b.drop(key)
	}
	return err
}
