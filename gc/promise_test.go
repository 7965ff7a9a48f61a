package gc_test

import (
	"context"
	"testing"
	"time"

	"github.com/celler/celler/gc"
)

// What a deletion promises holds for a path that has an object to itself, with servers
// that collect as soon as something is due.
func TestDeletedByTheTimeThatWasSaid(t *testing.T) {
	for name, now := range map[string]bool{"now": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			w := mkWorld(t)
			n := w.mkNode(t)
			n.create("main", 0)
			n.push("main", "public")
			c := n.collector(func(o *gc.Options) {
				o.NarGrace, o.ReaderGrace, o.Pickup = 2*day, day, 15*time.Minute
				o.Clock = func(context.Context) (time.Time, error) { return w.now(), nil }
			})
			n.live(3, c)
			n.push("main", "secret")
			n.mustRound(c)
			rep, err := c.Delete(t.Context(), gc.DeleteRequest{Cache: "main", Paths: hashParts("secret"), Now: now})
			if err != nil {
				t.Fatal(err)
			}
			for w.now().Before(rep.GoneBy) {
				w.pass(15 * time.Minute)
				n.mustRound(c)
			}
			if w.holds("secret") {
				t.Errorf("it is %v, the secret was to be gone by %v, and is still there", w.now(), rep.GoneBy)
			}
			n.wantPaths("main", "public")
		})
	}
}
