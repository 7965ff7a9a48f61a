package node

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
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

// TestRestoreRacesPushes: a restore is one moment in the log. What was acknowledged
// after it stays, what was there when it looked and had not been there goes, and all that was,
// is.
func TestRestoreRacesPushes(t *testing.T) {
	for _, much := range []bool{false, true} {
		t.Run(fmt.Sprint(much), func(t *testing.T) {
			r := mkRig(t, memblob.New())
			ctx := t.Context()
			_, err := r.cat.CreateCache(ctx, catalog.Cache{Name: "ci"})
			r.must(err)
			for i := range 20 {
				_, err := r.publish("ci", fmt.Sprint("old", i), fmt.Sprint("old", i))
				r.must(err)
			}
			then := r.visible()
			at := When{seq: wal.Seq(r.Seq())}
			if much {
				_, err = r.cat.DestroyCache(ctx, "ci")
				r.must(err)
			}
			for i := range 10 {
				_, err = r.cat.Withdraw(ctx, "ci", storePath(fmt.Sprint("old", i)).HashPart())
				if !much {
					r.must(err)
				}
			}
			stop := make(chan struct{})
			var mu sync.Mutex
			acked := map[string]uint64{}
			var wg sync.WaitGroup
			for w := range 3 {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(w), 1))
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						name := fmt.Sprintf("new%d-%d", w, i)
						if rng.IntN(4) == 0 { // the same path as another, at about the same time
							name = fmt.Sprint("both", i/8)
						}
						seq, err := r.publishQuietly("ci", name)
						if err == nil {
							mu.Lock()
							acked[storePath(name).Base()] = max(acked[storePath(name).Base()], seq)
							mu.Unlock()
						}
					}
				})
			}
			var rep RestoreReport
			for range 5 {
				rep, err = r.restore(ctx, RestoreRequest{At: at, Cache: "ci"})
				r.must(err)
			}
			close(stop)
			wg.Wait()
			got := r.visible()
			for name, text := range then {
				if got[name] != text {
					t.Errorf("%s is not as it was", name)
				}
			}
			survivors := 0
			for base, seq := range acked {
				_, there := got["path ci "+base]
				switch {
				case seq > max(rep.Seq, rep.Before) && !there: // Seq is 0 if there was nothing to do
					t.Errorf("%s was pushed in slot %d, after the restore in %d, and is not there", base, seq, rep.Seq)
				case seq <= rep.Before && there:
					t.Errorf("%s was pushed in slot %d; the restore, which looked at %d, has left it", base, seq, rep.Before)
				case there:
					survivors++
				}
			}
			t.Logf("%d pushes, %d stay", len(acked), survivors)
		})
	}
}

func (r *rig) publishQuietly(cache, name string) (uint64, error) {
	res, err := r.chunks.Write(context.WithoutCancel(r.t.Context()), bytes.NewReader([]byte(name)))
	if err != nil {
		return 0, err
	}
	seq, err := r.cat.Publish(context.WithoutCancel(r.t.Context()), catalog.Publication{
		Path:   catalog.Path{Cache: catalog.CacheName(cache), StorePath: storePath(name), NarHash: res.Recipe.NarHash, NarSize: res.Recipe.Size},
		Recipe: res.Recipe, Packs: res.Packs,
	})
	return uint64(seq), err
}
