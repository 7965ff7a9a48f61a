package gc_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
)

// Of several who delete a path at once, one did.
func TestDeleteAtOnce(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 0)
	n.push("main", "secret", "public", "secret")
	n.live(3, n.collector())
	var deleted atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		c := n.collector()
		wg.Go(func() {
			rep, err := c.Delete(t.Context(), gc.DeleteRequest{Cache: "main", Paths: hashParts("secret")})
			if err != nil && !errors.Is(err, catalog.ErrNoPath) {
				t.Error(err)
			}
			deleted.Add(int64(len(rep.Paths)))
		})
	}
	wg.Wait()
	if deleted.Load() != 1 {
		t.Errorf("%d of 16 say that they deleted the path", deleted.Load())
	}
}
