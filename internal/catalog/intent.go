package catalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// An intent is a publication on its way to another server, which commits it in our
// place: see wal.Op.Intent. It is never stored. Numbers are unsigned varints.
//
//	magic "CLI1"; "CLI2" if there is a listing; "CLI3" if there are proofs
//	name of the cache             length, bytes
//	row of the path, as stored    length of its key, key, length of its value, value
//	recipe                        as in a recipe row
//	number of packs, and each     layout as in a pack row, then 32 bytes for each chunk
//	proofs, if CLI3               8 bytes for each chunk of each pack; zeros if not known
//	listing, if CLI2 or CLI3      the rest
//
// The cache id in the key of the path is 1, whatever the cache: who performs the
// publication looks it up anew.
const (
	intentMagic = "CLI1"
	listedMagic = "CLI2"
	provedMagic = "CLI3"
	publishOp   = "publish"
	// maxIntentPacks is far above what one push leaves uncommitted.
	maxIntentPacks = 1 << 10
)

var errNoIntent = errors.New("only this server can perform the publication")

// intent encodes the publication.
func (u *publishing) intent() ([]byte, error) {
	if u.Pin != nil || u.First || u.Claim != nil || u.sig == "" || len(u.Packs) > maxIntentPacks {
		return nil, errNoIntent
	}
	row := u.Path
	row.Sig, row.SigKey = u.sig, u.sigKey
	text := func(dst []byte, s []byte) []byte {
		return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
	}
	magic := intentMagic
	proved := slices.ContainsFunc(u.Packs, func(p chunk.NewPack) bool { return p.Proofs != nil })
	switch {
	case proved:
		magic = provedMagic
	case len(u.Listing) > 0:
		magic = listedMagic
	}
	out := append([]byte(nil), magic...)
	out = text(out, []byte(u.Path.Cache))
	out = text(out, keyspace.AppendPathKey(nil, keyspace.FirstCount, row.StorePath.HashPart()))
	out = text(out, keyspace.AppendPath(nil, &row))
	out = chunk.AppendRecipe(out, &u.Recipe)
	out = binary.AppendUvarint(out, uint64(len(u.Packs)))
	for i := range u.Packs {
		out = chunk.AppendLayout(out, &u.Packs[i].Layout)
		for _, id := range u.Packs[i].IDs {
			out = append(out, id[:]...)
		}
	}
	for i := 0; proved && i < len(u.Packs); i++ {
		for j := range u.Packs[i].IDs {
			var proof chunk.Proof
			if u.Packs[i].Proofs != nil {
				proof = u.Packs[i].Proofs[j]
			}
			out = append(out, proof[:]...)
		}
	}
	return append(out, u.Listing...), nil
}

// Revive returns the operation that another server meant: see wal.Log.Accept.
func (c *Catalog) Revive(name string, intent []byte) (wal.Op, error) {
	if name != publishOp {
		return wal.Op{}, fmt.Errorf("operation %q is not known here", name)
	}
	u, err := decodeIntent(intent)
	if err != nil {
		return wal.Op{}, fmt.Errorf("decode publication: %w", err)
	}
	u.catalog = c
	sig, sigKey := u.Path.Sig, u.Path.SigKey
	if err := u.valid(); err != nil {
		return wal.Op{}, err
	}
	u.sig, u.sigKey = sig, sigKey
	if u.recipe, u.tag, err = keyspace.EncodeRecipe(&u.Recipe); err != nil {
		return wal.Op{}, err
	}
	return wal.Op{Name: publishOp, Cost: 2 * len(intent), Build: u.build}, nil
}

// decodeIntent reads a whole publication.
func decodeIntent(src []byte) (*publishing, error) {
	short := errors.New("it ends too early")
	magic := string(src[:min(len(src), len(intentMagic))])
	if magic != intentMagic && magic != listedMagic && magic != provedMagic {
		return nil, fmt.Errorf("it begins with %.8q, want %q, %q or %q", src, intentMagic, listedMagic, provedMagic)
	}
	src = src[len(intentMagic):]
	var texts [3][]byte
	for i := range texts {
		size, n := binary.Uvarint(src)
		if n <= 0 || size > uint64(len(src)-n) {
			return nil, short
		}
		texts[i], src = src[n:n+int(size)], src[n+int(size):]
	}
	u := &publishing{}
	var err error
	if u.Path, err = keyspace.DecodePath(texts[1], texts[2]); err != nil {
		return nil, err
	}
	if u.Path.Cache, err = keyspace.ParseCacheName(string(texts[0])); err != nil {
		return nil, err
	}
	if u.Recipe, src, err = chunk.DecodeRecipe(src); err != nil {
		return nil, err
	}
	count, n := binary.Uvarint(src)
	if n <= 0 || count > maxIntentPacks {
		return nil, fmt.Errorf("it has %d packs, want at most %d", count, maxIntentPacks)
	}
	src = src[n:]
	for range count {
		var p chunk.NewPack
		if p.Layout, src, err = chunk.DecodeLayout(src); err != nil {
			return nil, err
		}
		chunks := len(p.Layout.Sizes)
		if len(src)/len(chunk.ID{}) < chunks {
			return nil, short
		}
		p.IDs = make([]chunk.ID, chunks)
		for i := range p.IDs {
			src = src[copy(p.IDs[i][:], src):]
		}
		u.Packs = append(u.Packs, p)
	}
	if magic == provedMagic {
		if src, err = u.decodeProofs(src); err != nil {
			return nil, err
		}
	}
	switch {
	case magic == intentMagic && len(src) != 0:
		return nil, fmt.Errorf("%d bytes after its end", len(src))
	case magic == listedMagic && len(src) == 0:
		return nil, short
	case len(src) > 0:
		u.Listing = bytes.Clone(src) // Revive checks its length
	}
	return u, nil
}

// decodeProofs reads the proofs of all packs.
func (u *publishing) decodeProofs(src []byte) ([]byte, error) {
	for i := range u.Packs {
		p := &u.Packs[i]
		if len(src)/len(chunk.Proof{}) < len(p.IDs) {
			return nil, errors.New("it ends in its proofs")
		}
		p.Proofs = make([]chunk.Proof, len(p.IDs))
		for j := range p.Proofs {
			src = src[copy(p.Proofs[j][:], src):]
		}
	}
	return src, nil
}
