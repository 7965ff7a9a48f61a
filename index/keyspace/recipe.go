package keyspace

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/celler/celler/blob/chunk"
)

const (
	// RecipePartBytes is how much of a recipe one row holds, so that a row always
	// fits in one operation of the log.
	RecipePartBytes = 256 << 10

	// maxRecipeParts bounds a recipe to 64 MiB: more than ten million runs.
	maxRecipeParts = 256
)

// RecipeTag tells the parts of one encoding from those of another, so that two
// writers who store different recipes of one NAR at once never mix them.
type RecipeTag [8]byte

// RecipeKey is what the key of a recipe's row says. Part 0 is the head, which
// alone makes the recipe exist; its tag is in the value.
type RecipeKey struct {
	NarHash [32]byte
	Tag     RecipeTag
	Part    int
}

// RecipeHead is the first row of a recipe.
type RecipeHead struct {
	Parts      int   // rows in all, at least one
	ServedSize int64 // Served.Size of the recipe, so that a path can be published by the head alone
	Tag        RecipeTag
	Bytes      []byte // first part of the encoding; aliases the value
}

// AppendRecipeKey appends the key of a recipe's row.
func AppendRecipeKey(dst []byte, k RecipeKey) []byte {
	dst = append(append(dst, RecipePrefix), k.NarHash[:]...)
	if k.Part == 0 {
		return dst
	}
	return binary.BigEndian.AppendUint16(append(dst, k.Tag[:]...), uint16(k.Part))
}

// DecodeRecipeKey returns what the key of a recipe's row says.
func DecodeRecipeKey(key []byte) (RecipeKey, error) {
	var k RecipeKey
	if rest, ok := cutPrefix(key, RecipePrefix, 32); ok {
		k.NarHash = [32]byte(rest)
		return k, nil
	}
	rest, ok := cutPrefix(key, RecipePrefix, 32+8+2)
	if !ok {
		return RecipeKey{}, keyError("recipe", key)
	}
	k.NarHash, k.Tag = [32]byte(rest), RecipeTag(rest[32:])
	k.Part = int(binary.BigEndian.Uint16(rest[40:]))
	if k.Part < 1 || k.Part >= maxRecipeParts {
		return RecipeKey{}, keyError("recipe", key)
	}
	return k, nil
}

// EncodeRecipe returns the values of the rows of r, the head first, and the tag
// in the keys of the others.
func EncodeRecipe(r *chunk.Recipe) (values [][]byte, tag RecipeTag, err error) {
	body := chunk.AppendRecipe(nil, r)
	parts := (len(body) + RecipePartBytes - 1) / RecipePartBytes
	if parts > maxRecipeParts {
		return nil, RecipeTag{}, fmt.Errorf("recipe of %d runs takes %d bytes, want at most %d", len(r.Runs), len(body), maxRecipeParts*RecipePartBytes)
	}
	head := append([]byte{rowVersion}, byte(parts-1))
	head = binary.AppendUvarint(head, uint64(r.Served.Size))
	if parts > 1 {
		sum := sha256.Sum256(body)
		tag = RecipeTag(sum[:])
		head = append(head, tag[:]...)
	}
	for i := range parts {
		part := body[i*RecipePartBytes : min(len(body), (i+1)*RecipePartBytes)]
		if i == 0 {
			values = append(values, append(head, part...))
		} else {
			values = append(values, append([]byte{rowVersion}, part...))
		}
	}
	return values, tag, nil
}

// DecodeRecipeHead decodes the first row of a recipe.
func DecodeRecipeHead(value []byte) (RecipeHead, error) {
	d := decoder[[]byte]{what: "recipe", src: value}
	d.version()
	h := RecipeHead{Parts: int(d.byte()) + 1}
	h.ServedSize = int64(d.upTo(maxSize, "served size"))
	if h.Parts > 1 {
		d.fill(h.Tag[:])
	}
	h.Bytes = d.src
	if d.err == nil && (len(h.Bytes) > RecipePartBytes || h.Parts > 1 && len(h.Bytes) != RecipePartBytes) {
		d.fail("%d bytes in the first of %d parts, want %d", len(h.Bytes), h.Parts, RecipePartBytes)
	}
	if d.err != nil {
		return RecipeHead{}, d.err
	}
	return h, nil
}

// DecodeRecipe decodes the recipe of the NAR that hashes to narHash. part is
// asked for the values of the rows after the head, in order.
func DecodeRecipe(narHash [32]byte, head []byte, part func(RecipeKey) ([]byte, error)) (chunk.Recipe, error) {
	h, err := DecodeRecipeHead(head)
	if err != nil {
		return chunk.Recipe{}, err
	}
	body := h.Bytes
	if h.Parts > 1 {
		body = append([]byte(nil), body...) // which aliases the caller's value
	}
	for i := 1; i < h.Parts; i++ {
		value, err := part(RecipeKey{NarHash: narHash, Tag: h.Tag, Part: i})
		if err != nil {
			return chunk.Recipe{}, err
		}
		if len(value) < 2 || value[0] != rowVersion || len(value) > 1+RecipePartBytes || i < h.Parts-1 && len(value) != 1+RecipePartBytes {
			return chunk.Recipe{}, fmt.Errorf("decode recipe row: part %d of %d has %d bytes or another version, want version %d and %d bytes",
				i, h.Parts, len(value), rowVersion, 1+RecipePartBytes)
		}
		body = append(body, value[1:]...)
	}
	if h.Parts > 1 {
		if sum := sha256.Sum256(body); RecipeTag(sum[:]) != h.Tag {
			return chunk.Recipe{}, fmt.Errorf("decode recipe row: %d parts have tag %x, want %x", h.Parts, sum[:8], h.Tag)
		}
	}
	r, rest, err := chunk.DecodeRecipe(body)
	if err != nil {
		return chunk.Recipe{}, fmt.Errorf("decode recipe row: %w", err)
	}
	if len(rest) != 0 || r.NarHash != narHash || r.Served.Size != h.ServedSize {
		return chunk.Recipe{}, fmt.Errorf("decode recipe row: recipe of NAR %x, served size %d, and %d more bytes, want NAR %x, %d and none",
			r.NarHash, r.Served.Size, len(rest), narHash, h.ServedSize)
	}
	return r, nil
}
