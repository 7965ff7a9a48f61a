package fsck_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"testing"
	"testing/synctest"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/internal/fsck"
)

// TestNoAbsence makes each request of a check fail in each way, and wants no error ever to
// count as damage: nothing is withdrawn and nothing condemned.
func TestNoAbsence(t *testing.T) { synctest.Test(t, testNoAbsence) }

func testNoAbsence(t *testing.T) {
	w, n := mkStore(t)
	if _, err := compact.New(w.bucket, compact.Options{KeepSegments: -1, LogRetention: -1}).Round(t.Context(), compact.Mode{}); err != nil {
		t.Fatal(err)
	}
	w.remove(pack.Key(n.orphan()))
	neverDamaged(t, w, w.bucket)
	// A listing that leaves an object out, as some do for a while.
	lagging := hiding{w.bucket, pack.Key(n.packOf("a", "x"))}
	w.mkNodeOn(lagging).wantKinds(fsck.Mode{Objects: true, Repair: true}, "")
	neverDamaged(t, w, lagging)
	n.wantKinds(everything(), "")
	n.wantPaths("a", "later x y")
}

// neverDamaged checks and repairs a sound store through a bucket of which each request fails
// in each way.
func neverDamaged(t *testing.T, w *world, bucket blob.Bucket) {
	t.Helper()
	faulty := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{})
	f := w.mkNodeOn(faulty)
	for _, fault := range []blobtest.Fault{blobtest.LostRequest, blobtest.LostResponse, blobtest.Denied, blobtest.ShortBody, blobtest.StaleList} {
		for k := 0; ; k++ {
			calls := 0
			faulty.Set(func(i int, op string, key blob.Key) blobtest.Fault {
				calls++
				return blobtest.FailAt(k, fault)(i, op, key)
			})
			mode := everything()
			mode.Repair = true
			o := f.check(mode)
			for _, bad := range o.findings {
				if bad.Kind != fsck.Unread {
					t.Fatalf("request %d, %v: %+v", k, fault, bad)
				}
			}
			if r := o.rep.Repair; r != nil && r.Chunks+r.Paths+r.Recipes+r.ChunkRows > 0 {
				t.Fatalf("request %d, %v: %+v", k, fault, r)
			}
			if calls <= k {
				break
			}
		}
	}
	faulty.Set(nil)
}

// hiding is a bucket whose listings leave an object out.
type hiding struct {
	blob.Bucket
	key blob.Key
}

func (b hiding) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for info, err := range b.Bucket.List(ctx, prefix, after) {
			if info.Key != b.key && !yield(info, err) {
				return
			}
		}
	}
}

// orphan puts an object into the bucket that nobody knows.
func (n *node) orphan() chunk.PackID {
	n.t.Helper()
	id := chunk.PackID{Epoch: 1, Rand: 12345}
	if _, err := n.w.bucket.Put(n.t.Context(), pack.Key(id), []byte("x")); err != nil {
		n.t.Fatal(err)
	}
	if o := n.check(fsck.Mode{Objects: true}); o.err != nil || o.rep.Orphans != 1 || o.rep.OrphanBytes != 1 || !o.rep.Sound() {
		n.t.Fatalf("with an object that nobody knows: %+v, %v", o.rep, o.err)
	}
	return id
}

// denying refuses to let packs be read, all of the time.
type denying struct {
	blob.Bucket
}

func (b denying) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	if pack.Prefix == key[:len(pack.Prefix)] {
		return nil, &blob.Error{Op: "get", Key: key, Kind: blob.KindDenied, Err: fmt.Errorf("access denied")}
	}
	return b.Bucket.GetRange(ctx, key, off, n)
}

// TestDenied looks at a bucket that lets packs be listed and not be read.
func TestDenied(t *testing.T) {
	w, _ := mkStore(t)
	n := w.mkNodeOn(denying{Bucket: w.bucket})
	mode := everything()
	mode.Repair = true
	o := n.wantKinds(mode, "unread")
	if o.rep.Repair.Left == 0 || o.rep.Read != 0 {
		t.Errorf("nothing could be read: %+v", o.rep)
	}
	w.remove(w.packs()[0])
	o = n.wantKinds(mode, "unread") // is it there or not? Nobody can tell.
	if r := o.rep.Repair; r.Chunks+r.Paths > 0 {
		t.Errorf("absence was taken from an error: %+v", r)
	}
}
