package keyspace

import (
	"encoding/binary"

	"github.com/celler/celler/nix"
)

// Former says that a path of a cache named a NAR and does no more. As long as the NAR
// can be put together, who may read the cache may still fetch it by the URL that the
// cache gave out. The row goes with the recipe.
type Former struct {
	NarHash  [32]byte // of the key
	Cache    CacheID  // of the key
	HashPart nix.HashPart
	Day      uint32 // store day on which the path went
}

// AppendFormerKey appends the key of a row.
func AppendFormerKey(dst []byte, narHash [32]byte, cache CacheID, hashPart nix.HashPart) []byte {
	dst = binary.BigEndian.AppendUint32(AppendFormerPrefix(dst, narHash), uint32(cache))
	return append(dst, hashPart[:]...)
}

// AppendFormerPrefix appends what the keys of all rows of a NAR begin with.
func AppendFormerPrefix(dst []byte, narHash [32]byte) []byte {
	return append(append(dst, FormerPrefix), narHash[:]...)
}

// AppendFormer appends the value of f.
func AppendFormer(dst []byte, f *Former) []byte {
	return binary.AppendUvarint(append(dst, rowVersion), uint64(f.Day))
}

// DecodeFormer decodes one row.
func DecodeFormer(key, value []byte) (Former, error) {
	rest, ok := cutPrefix(key, FormerPrefix, 32+4+len(nix.HashPart{}))
	if !ok {
		return Former{}, keyError("former", key)
	}
	f := Former{NarHash: [32]byte(rest), Cache: CacheID(binary.BigEndian.Uint32(rest[32:])), HashPart: nix.HashPart(rest[36:])}
	d := decoder[[]byte]{what: "former", src: value}
	d.version()
	f.Day = d.day()
	if f.Cache == 0 {
		d.fail("there is no cache 0")
	}
	if err := d.end(); err != nil {
		return Former{}, err
	}
	return f, nil
}
