package keyspace

import "fmt"

// MaxListingBytes is the longest listing that is kept, in compressed bytes. Longer ones
// are made anew when somebody asks: they belong to NARs of thousands of files, and a
// state that carried them all would grow by more than its paths.
const MaxListingBytes = 16 << 10

// Listing is what is in a NAR: the JSON that binary caches serve as "<hash part>.ls",
// compressed with zstd. It goes with the recipe.
type Listing struct {
	NarHash [32]byte // of the key
	Zstd    []byte   // 1 to MaxListingBytes
}

// AppendListingKey appends the key of the listing of a NAR.
func AppendListingKey(dst []byte, narHash [32]byte) []byte {
	return append(append(dst, ListingPrefix), narHash[:]...)
}

// AppendListing appends the value of l.
func AppendListing(dst []byte, l *Listing) []byte {
	return append(append(dst, rowVersion), l.Zstd...)
}

// DecodeListing decodes one listing, which aliases value.
func DecodeListing(key, value []byte) (Listing, error) {
	rest, ok := cutPrefix(key, ListingPrefix, 32)
	if !ok {
		return Listing{}, keyError("listing", key)
	}
	d := decoder[[]byte]{what: "listing", src: value}
	d.version()
	if d.err != nil {
		return Listing{}, d.err
	}
	if n := len(d.src); n < 1 || n > MaxListingBytes {
		return Listing{}, fmt.Errorf("decode listing row: listing has %d bytes, want 1 to %d", n, MaxListingBytes)
	}
	return Listing{NarHash: [32]byte(rest), Zstd: d.src}, nil
}
