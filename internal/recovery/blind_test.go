package recovery_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/internal/recovery"
	"github.com/celler/celler/wal"
)

// liar is a bucket whose listings, or answers, are not what is in it.
type liar struct {
	blob.Bucket
	hides blob.Key // not listed
	ghost blob.Key // listed, although it is not there
	short blob.Key // listed with fewer bytes
	loses blob.Key // listed, and not given
	once  bool     // the first time only

	mu   sync.Mutex // guards lied
	lied map[blob.Key]bool
}

func (l *liar) lies(about, key blob.Key) bool {
	if about != key {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lied == nil {
		l.lied = map[blob.Key]bool{}
	}
	first := !l.lied[key]
	l.lied[key] = true
	return first || !l.once
}

func (l *liar) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		ghost := l.ghost
		if len(ghost) < len(prefix) || ghost[:len(prefix)] != prefix || ghost <= after {
			ghost = ""
		}
		for info, err := range l.Bucket.List(ctx, prefix, after) {
			if err == nil && l.lies(l.hides, info.Key) {
				continue
			}
			if err == nil && l.lies(l.short, info.Key) {
				info.Size--
			}
			if ghost != "" && info.Key > ghost {
				if !yield(blob.Info{Key: ghost, Size: 1000}, nil) {
					return
				}
				ghost = ""
			}
			if !yield(info, err) {
				return
			}
		}
		if ghost != "" {
			yield(blob.Info{Key: ghost, Size: 1000}, nil)
		}
	}
}

func (l *liar) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	if l.lies(l.loses, key) {
		return nil, "", blob.ErrNotExist
	}
	return l.Bucket.Get(ctx, key)
}

func (l *liar) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	if l.lies(l.loses, key) {
		return nil, blob.ErrNotExist
	}
	return l.Bucket.GetRange(ctx, key, off, n)
}

// honest is what a plan says of a bucket that does not lie.
func (w *world) honest() string {
	return sayings(w.examine(recovery.Options{Profile: profile}))
}

// sayings is what a plan says, but for the name of a store that it makes up.
func sayings(p *recovery.Plan) string { return strings.ReplaceAll(text(p), p.Store, "") }

// What a bucket says wrongly, once or always, never changes what is found to be lost:
// either it is seen through, or nothing is concluded.
func TestLiars(t *testing.T) {
	for _, h := range append(harms(), harm{name: "sound", do: func(*world) {}}) {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			w := mkStore(t, h.keep)
			h.do(w)
			want := w.honest()
			plain := w.bucket
			rootGone := w.get(wal.RootKey) == blob.ErrNotExist.Error()
			caught, seenThrough := 0, 0
			try := func(what string, key blob.Key, l *liar) {
				l.Bucket = plain
				p, err := recovery.Examine(t.Context(), l, l, recovery.Options{Profile: profile, Dir: t.TempDir()})
				switch {
				case err != nil:
					caught++
				case sayings(p) == want:
					seenThrough++
				default:
					t.Errorf("%s %s: the plan is\n%swant\n%s", what, key, text(p), want)
				}
			}
			for _, key := range w.keys("") {
				for _, once := range []bool{false, true} {
					_, isSnapshot := keyIn(key, "snap/")
					if _, isPack := keyIn(key, "pack/"); !isPack && (once || !isSnapshot || !rootGone && h.name == "sound") {
						try("hides", key, &liar{hides: key, once: once})
					}
					try("loses", key, &liar{loses: key, once: once})
					if _, isTable := keyIn(key, "tab/"); isTable {
						try("shortens", key, &liar{short: key, once: once})
					}
				}
			}
			t.Logf("%d caught, %d seen through", caught, seenThrough)
			if caught == 0 && h.name != "packs alone" {
				t.Error("no lie was caught")
			}
		})
	}
}

func keyIn(key, prefix blob.Key) (blob.Key, bool) {
	if len(key) > len(prefix) && key[:len(prefix)] == prefix {
		return key[len(prefix):], true
	}
	return "", false
}

// Errors of the bucket, at any call, end the examination, or do not matter.
func TestErrorsAreNotAbsence(t *testing.T) {
	for _, h := range harms() {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			w := mkStore(t, h.keep)
			h.do(w)
			want := w.honest()
			faulty := blobtest.NewFaulty(w.bucket, blobtest.FaultyOptions{})
			o := recovery.Options{Profile: profile, Dir: t.TempDir()}
			if _, err := recovery.Examine(t.Context(), faulty, faulty, o); err != nil {
				t.Fatal(err)
			}
			calls := faulty.Calls()
			for _, fault := range []blobtest.Fault{blobtest.LostRequest, blobtest.Denied, blobtest.ShortBody} {
				failed := 0
				for k := range calls {
					faulty.Set(blobtest.FailAt(k, fault))
					p, err := recovery.Examine(t.Context(), faulty, faulty, o)
					switch {
					case err != nil && !errors.Is(err, blobtest.ErrInjected):
						t.Errorf("%v at call %d: %v", fault, k, err)
					case err != nil:
						failed++
					case sayings(p) != want:
						t.Errorf("%v at call %d: the plan is\n%swant\n%s", fault, k, text(p), want)
					}
				}
				if fault != blobtest.ShortBody && failed < calls/2 { // others are made again
					t.Errorf("%v: %d of %d calls failed the examination", fault, failed, calls)
				}
			}
		})
	}
}
