package node

import (
	"io"
	"math/rand/v2"
	"testing"

	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// TestFullPacksCountForTheirCache: packs that are full are known before their path is, and
// what they bring counts as brought to the cache that was pushed to.
func TestFullPacksCountForTheirCache(t *testing.T) {
	r := mkRig(t, memblob.New())
	_, err := r.cat.CreateCache(t.Context(), catalog.Cache{Name: "a", StoreDir: nix.DefaultStoreDir})
	r.must(err)
	noise := rand.NewChaCha8([32]byte{1})
	_, err = r.chunks.Write(catalog.For(t.Context(), "a"), io.LimitReader(noise, 40<<20))
	r.must(err)
	if s, err := r.cat.Stats(t.Context(), "a"); err != nil || s.BroughtBytes == 0 {
		t.Errorf("%d bytes were brought, %v; want most of 40 MiB", s.BroughtBytes, err)
	}
}
