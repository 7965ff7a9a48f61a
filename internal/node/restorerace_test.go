package node

import (
	"context"
	"strings"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/wal"
)

// intruded is a bucket on which something happens before the first commit that is made
// through it once it is armed.
type intruded struct {
	blob.Bucket
	act func()
}

func (b *intruded) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if act := b.act; act != nil && strings.HasPrefix(string(key), "log/") {
		b.act = nil
		act()
	}
	return b.Bucket.Create(ctx, key, body)
}

// What happens between the look at what there is and the restore does not mix with it: all
// that was is again, and nothing that a pin needs is missing.
func TestRestoreSeesWhatCameMeanwhile(t *testing.T) {
	pin := func(r *rig, name, path string) {
		_, err := r.cat.SetPin(r.t.Context(), catalog.PinChange{Cache: "ci", Name: name, StorePath: storePath(path), By: "me"})
		r.must(err)
	}
	withdraw := func(r *rig, path string) {
		_, err := r.cat.Withdraw(r.t.Context(), "ci", storePath(path).HashPart())
		r.must(err)
	}
	for name, tt := range map[string]struct {
		before, meanwhile func(*rig)
		request           RestoreRequest
	}{
		"a pin on what goes": {
			before:    func(r *rig) { _, err := r.publish("ci", "new", "new"); r.must(err) },
			meanwhile: func(r *rig) { pin(r, "p", "new") },
			request:   RestoreRequest{Cache: "ci"},
		},
		"a pin of the same name": {
			before: func(r *rig) { _, err := r.cat.RemovePin(r.t.Context(), "ci", "rel"); r.must(err) },
			meanwhile: func(r *rig) {
				for _, path := range []string{"lib", "app", "lib", "app"} {
					pin(r, "rel", path)
				}
			},
			request: RestoreRequest{Cache: "ci", Pin: "rel"},
		},
		"a path that leaves": {
			before:    func(r *rig) { _, err := r.cat.RemovePin(r.t.Context(), "ci", "rel"); r.must(err); withdraw(r, "app") },
			meanwhile: func(r *rig) { withdraw(r, "lib") },
			request:   RestoreRequest{Cache: "ci", Pin: "rel"},
		},
		"a path that leaves a cache": {
			before:    func(r *rig) { _, err := r.cat.RemovePin(r.t.Context(), "ci", "rel"); r.must(err) },
			meanwhile: func(r *rig) { withdraw(r, "lib") },
			request:   RestoreRequest{Cache: "ci"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bucket := memblob.New()
			b := &intruded{Bucket: bucket}
			r, other := mkRig(t, b), mkRig(t, bucket)
			_, err := r.cat.CreateCache(t.Context(), catalog.Cache{Name: "ci"})
			r.must(err)
			_, err = r.publish("ci", "lib", "lib")
			r.must(err)
			_, err = r.publish("ci", "app", "app", storePath("lib"))
			r.must(err)
			pin(r, "rel", "app")
			then := r.visible()
			tt.request.At = When{seq: wal.Seq(r.Seq())}
			tt.before(r)
			_, err = other.cat.CatchUp(t.Context())
			r.must(err)
			b.act = func() { tt.meanwhile(other) }
			_, err = r.restore(t.Context(), tt.request)
			r.must(err)
			now := r.visible()
			for row, text := range then {
				if now[row] != text {
					t.Errorf("%s is\n%s, want\n%s", row, now[row], text)
				}
			}
			for row := range now {
				if _, was := then[row]; !was {
					t.Errorf("%s is there and was not", row)
				}
			}
		})
	}
}
