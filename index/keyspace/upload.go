package keyspace

import (
	"encoding/binary"
	"fmt"

	"github.com/celler/celler/nix"
)

// Upload says which NAR is in a file that was put into a cache, as plain Nix does, before
// the narinfo that makes a path of it. Once there is a path the row stays, so that the
// URL in that narinfo answers; it goes with the recipe.
type Upload struct {
	Cache       CacheID  // of the key
	FileHash    [32]byte // of the key: SHA-256 of the file as it was sent
	Day         uint32   // store day on which it came, or last came again
	NarHash     [32]byte
	NarSize     int64
	FileSize    int64
	Compression string // as narinfos spell it
	Claimed     bool   // a narinfo has made a path of it
	HashPart    nix.HashPart
}

// AppendUploadPrefix appends what the keys of all uploads of a cache begin with.
func AppendUploadPrefix(dst []byte, cache CacheID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, UploadPrefix), uint32(cache))
}

// AppendUploadKey appends the key of an upload.
func AppendUploadKey(dst []byte, cache CacheID, fileHash [32]byte) []byte {
	return append(AppendUploadPrefix(dst, cache), fileHash[:]...)
}

const flagClaimed = 1 << 0

// AppendUpload appends the value of u.
func AppendUpload(dst []byte, u *Upload) []byte {
	dst = binary.AppendUvarint(append(dst, rowVersion), uint64(u.Day))
	dst = append(dst, flagIf(u.Claimed, flagClaimed))
	dst = append(dst, u.NarHash[:]...)
	dst = binary.AppendUvarint(dst, uint64(u.NarSize))
	dst = binary.AppendUvarint(dst, uint64(u.FileSize))
	dst = appendText(dst, u.Compression)
	if u.Claimed {
		dst = append(dst, u.HashPart[:]...)
	}
	return dst
}

// DecodeUpload decodes the row of one upload.
func DecodeUpload(key, value []byte) (Upload, error) {
	rest, ok := cutPrefix(key, UploadPrefix, 4+32)
	if !ok || binary.BigEndian.Uint32(rest) == 0 {
		return Upload{}, keyError("upload", key)
	}
	u := Upload{Cache: CacheID(binary.BigEndian.Uint32(rest)), FileHash: [32]byte(rest[4:])}
	d := decoder[[]byte]{what: "upload", src: value}
	d.version()
	u.Day = d.day()
	u.Claimed = d.flags(flagClaimed)&flagClaimed != 0
	d.fill(u.NarHash[:])
	u.NarSize = int64(d.upTo(maxSize, "NAR size"))
	u.FileSize = int64(d.upTo(maxSize, "file size"))
	u.Compression = string(d.text())
	if u.Claimed {
		d.fill(u.HashPart[:])
	}
	if err := d.end(); err != nil {
		return Upload{}, err
	}
	if err := u.Valid(); err != nil {
		return Upload{}, fmt.Errorf("decode upload row: %w", err)
	}
	return u, nil
}

// Valid reports what is wrong with the row, if anything.
func (u *Upload) Valid() error {
	if len(u.Compression) > maxCompression {
		return fmt.Errorf("name of a compression has %d bytes, want at most %d", len(u.Compression), maxCompression)
	}
	return validText("name of a compression", u.Compression)
}

// maxCompression bounds the name of a compression.
const maxCompression = 16
