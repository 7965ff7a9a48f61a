package gc_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
)

// doorstep is a bucket on which something happens, once it is armed, before one of the
// commits that are made through it.
type doorstep struct {
	blob.Bucket
	act   func()
	after int // so many commits: a writer begins with two, that in which it opens its session and that in which it begins to look
}

func (d *doorstep) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if act := d.act; act != nil && strings.HasPrefix(string(key), "log/") {
		if d.after--; d.after < 0 {
			d.act = nil
			act()
		}
	}
	return d.Bucket.Create(ctx, key, body)
}

// What becomes needed while a deletion makes up its mind stays, or the deletion says that
// it is kept.
func TestDeleteWhileOthersComeToNeedIt(t *testing.T) {
	pin := func(n *node, name string) {
		if _, err := n.cat.SetPin(n.t.Context(), catalog.PinChange{Cache: "main", Name: "p", StorePath: mkPath(name)}); err != nil {
			n.t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		before, act func(*node)
		closure     bool
		want        string
		kept        bool // the deletion is refused
	}{
		"a pin on what needs it": {
			act: func(n *node) { pin(n, "app") }, want: "app lib libc", kept: true,
		},
		"a path that a pin waits for and that needs it": {
			before: func(n *node) { pin(n, "new") },
			act:    func(n *node) { n.push("main", "mid: lib"); n.push("main", "new: mid") },
			want:   "app lib libc mid new", kept: true,
		},
		"a path that needs what only the deleted path did": {
			act: func(n *node) { n.push("main", "new: libc") }, closure: true, want: "app libc new",
		},
		"a pinned path in front of what is not there yet": {
			before: func(n *node) { n.push("main", "new: mid"); pin(n, "new") },
			act:    func(n *node) { n.push("main", "mid: lib") },
			want:   "app lib libc mid new", kept: true,
		},
		"a collection": {
			act: func(n *node) {
				if _, err := n.collector().Round(n.t.Context(), gc.Mode{}); err != nil {
					n.t.Fatal(err)
				}
			},
			closure: true, want: "app",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := mkWorld(t)
			other := w.mkNode(t)
			other.create("main", 0)
			other.push("main", "libc")
			other.push("main", "lib: libc")
			other.push("main", "app: lib")
			if tt.before != nil {
				tt.before(other)
			}
			d := &doorstep{Bucket: w.bucket, after: 2}
			n, err := w.openNode(t, d)
			if err != nil {
				t.Fatal(err)
			}
			d.act = func() { tt.act(other) }
			_, err = n.collector().Delete(t.Context(), gc.DeleteRequest{Cache: "main", Paths: hashParts("lib"), Closure: tt.closure, Now: true})
			if kept := errors.Is(err, catalog.ErrPinned); kept != tt.kept || err != nil && !kept {
				t.Errorf("deletion: %v, want it refused: %v", err, tt.kept)
			}
			other.wantPaths("main", tt.want)
		})
	}
}
