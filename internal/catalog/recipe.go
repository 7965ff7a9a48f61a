package catalog

import (
	"context"
	"fmt"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// Recipe returns how the NAR that hashes to narHash is put together, or
// ErrNoRecipe.
func (c *Catalog) Recipe(ctx context.Context, narHash [32]byte) (chunk.Recipe, error) {
	key := keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: narHash})
	r, ok, err := lookup(ctx, c, "look up the recipe", key, func(_, head []byte) (chunk.Recipe, error) {
		return keyspace.DecodeRecipe(narHash, head, c.recipePart)
	})
	if err == nil && !ok {
		err = fmt.Errorf("NAR %x: %w", narHash, ErrNoRecipe)
	}
	return r, err
}

func (c *Catalog) recipePart(k keyspace.RecipeKey) ([]byte, error) {
	value, ok, err := c.db.Get(keyspace.AppendRecipeKey(nil, k))
	if err == nil && !ok {
		err = fmt.Errorf("recipe of NAR %x: part %d is not there", k.NarHash, k.Part)
	}
	return value, err
}

// readRecipe decodes a recipe in the state an operation is built against, given its
// head. It is not complete if one of its parts is not there.
func readRecipe(v wal.View, narHash [32]byte, head []byte) (r chunk.Recipe, complete bool, err error) {
	partGone := false
	r, err = keyspace.DecodeRecipe(narHash, head, func(k keyspace.RecipeKey) ([]byte, error) {
		part, ok, err := v.Get(keyspace.AppendRecipeKey(nil, k))
		partGone = partGone || !ok && err == nil
		return part, err // one that is not there does not decode
	})
	if partGone {
		return chunk.Recipe{}, false, nil
	}
	return r, err == nil, err
}
