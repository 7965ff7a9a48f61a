package catalog

import (
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// newestRecipe is the version of the encoding of recipes up to which one that does not
// decode is damaged, and not of a later celler.
const newestRecipe = 2

// broken reports whether a NAR cannot be put together from what the state has, and else
// how long it is as it is served; 0 if that is not known. What a later celler wrote is not broken.
func broken(v wal.View, packs *packBuilder, narHash [32]byte) (servedSize int64, bad bool, err error) {
	head, ok, err := v.Get(keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: narHash}))
	if !ok || err != nil {
		return 0, !ok && err == nil, err
	}
	h, err := keyspace.DecodeRecipeHead(head)
	if err != nil || len(h.Bytes) > 0 && h.Bytes[0] > newestRecipe {
		return 0, false, nil
	}
	var unread error // says nothing about the recipe
	r, err := keyspace.DecodeRecipe(narHash, head, func(k keyspace.RecipeKey) ([]byte, error) {
		part, _, err := v.Get(keyspace.AppendRecipeKey(nil, k))
		if err != nil {
			unread = err
		}
		return part, err
	})
	if unread != nil {
		return 0, false, unread
	}
	if err != nil {
		return 0, true, nil
	}
	gone, err := packs.gone(&r)
	if len(gone) > 0 || err != nil {
		return 0, err == nil, err
	}
	size := int64(0)
	for _, run := range r.Runs {
		p, known, err := readPack(v, run.Pack)
		if err != nil {
			return 0, false, err
		}
		end := uint64(run.First) + uint64(run.Count)
		if !known || end > uint64(len(p.Layout.Sizes)) {
			return 0, true, nil
		}
		for _, n := range p.Layout.Sizes[run.First:end] {
			if n == 0 { // a hole
				return 0, true, nil
			}
			size += int64(n)
		}
	}
	return r.Served.Size, size != r.Size, nil
}
