package blob_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
)

// brokenBucket overrides single operations of a correct bucket.
type brokenBucket struct {
	blob.Bucket
	get    func(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error)
	getIf  func(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error)
	rang   func(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error)
	create func(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error)
	swap   func(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error)
	del    func(ctx context.Context, keys ...blob.Key) error
	list   func(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error]
}

func (b *brokenBucket) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	if b.get != nil {
		return b.get(ctx, key)
	}
	return b.Bucket.Get(ctx, key)
}

func (b *brokenBucket) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	if b.getIf != nil {
		return b.getIf(ctx, key, old)
	}
	return b.Bucket.GetIf(ctx, key, old)
}

func (b *brokenBucket) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	if b.rang != nil {
		return b.rang(ctx, key, off, n)
	}
	return b.Bucket.GetRange(ctx, key, off, n)
}

func (b *brokenBucket) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if b.create != nil {
		return b.create(ctx, key, body)
	}
	return b.Bucket.Create(ctx, key, body)
}

func (b *brokenBucket) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	if b.swap != nil {
		return b.swap(ctx, key, old, body)
	}
	return b.Bucket.Swap(ctx, key, old, body)
}

func (b *brokenBucket) Delete(ctx context.Context, keys ...blob.Key) error {
	if b.del != nil {
		return b.del(ctx, keys...)
	}
	return b.Bucket.Delete(ctx, keys...)
}

func (b *brokenBucket) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	if b.list != nil {
		return b.list(ctx, prefix, after)
	}
	return b.Bucket.List(ctx, prefix, after)
}

// checkThenAct waits between looking and writing until others have looked too.
func checkThenAct(m *memblob.Bucket, others int) func(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	var mu sync.Mutex
	looked := map[blob.Key]chan struct{}{}
	count := map[blob.Key]int{}
	return func(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
		if _, _, err := m.Get(ctx, key); err == nil {
			return "", blob.ErrExist
		}
		if strings.Contains(string(key), "race") {
			mu.Lock()
			if looked[key] == nil {
				looked[key] = make(chan struct{})
			}
			gate := looked[key]
			if count[key]++; count[key] == others {
				close(gate)
			}
			mu.Unlock()
			if strings.Contains(string(key), "create-race") {
				<-gate
			}
		}
		return m.Put(ctx, key, body)
	}
}

func TestProbeFindsBrokenPromises(t *testing.T) {
	notImplemented := &blob.Error{Op: "create", Kind: blob.KindUnsupported, Err: errors.New("501")}
	for _, c := range []struct {
		name  string
		full  []string // failed checks of the full probe
		short []string // and of the short one
		make  func(m *memblob.Bucket) *brokenBucket
	}{
		{
			"a bucket that ignores the condition of create",
			[]string{"create", "create-race"},
			[]string{"create-occupied", "get", "get-if"},
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, create: m.Put}
			},
		},
		{
			"a bucket that ignores the condition of swap",
			[]string{"swap", "swap-race"},
			[]string{"swap-stale"},
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, swap: func(ctx context.Context, key blob.Key, _ blob.Tag, body []byte) (blob.Tag, error) {
					return m.Put(ctx, key, body)
				}}
			},
		},
		{
			"a bucket that does not know conditions and says so",
			[]string{"create", "get-if", "swap", "delete", "create-race", "swap-race"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, create: func(context.Context, blob.Key, []byte) (blob.Tag, error) {
					return "", notImplemented
				}}
			},
		},
		{
			"a bucket that swaps what is not there",
			[]string{"swap"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, swap: func(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
					if _, _, err := m.Get(ctx, key); errors.Is(err, blob.ErrNotExist) {
						return m.Put(ctx, key, body)
					}
					return m.Swap(ctx, key, old, body)
				}}
			},
		},
		{
			"a bucket that checks first and writes later",
			[]string{"create-race"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, create: checkThenAct(m, 8)}
			},
		},
		{
			"a bucket that tells one writer it won and keeps another's body",
			[]string{"create-race", "swap-race"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				var mu sync.Mutex
				overwrite := func(ctx context.Context, key blob.Key, body []byte) error {
					mu.Lock()
					defer mu.Unlock()
					if strings.Contains(string(key), "race") {
						_, _ = m.Put(ctx, key, body)
					}
					return nil
				}
				return &brokenBucket{
					Bucket: m,
					create: func(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
						tag, err := m.Create(ctx, key, body)
						if errors.Is(err, blob.ErrExist) {
							_ = overwrite(ctx, key, body)
						}
						return tag, err
					},
					swap: func(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
						tag, err := m.Swap(ctx, key, old, body)
						if errors.Is(err, blob.ErrChanged) {
							_ = overwrite(ctx, key, body)
						}
						return tag, err
					},
				}
			},
		},
		{
			"a bucket that keeps the body of a writer it never answered",
			[]string{"create-race"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, create: func(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
					tag, err := m.Create(ctx, key, body)
					if errors.Is(err, blob.ErrExist) && strings.Contains(string(key), "race") {
						_, _ = m.Put(ctx, key, body)
						return "", &blob.Error{Op: "create", Kind: blob.KindUnreachable, Err: errors.New("reset")}
					}
					return tag, err
				}}
			},
		},
		{
			"a bucket behind a cache that remembers what was not there",
			[]string{"create"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				var mu sync.Mutex
				absent := map[blob.Key]bool{}
				return &brokenBucket{Bucket: m, get: func(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
					mu.Lock()
					defer mu.Unlock()
					body, tag, err := m.Get(ctx, key)
					if absent[key] || errors.Is(err, blob.ErrNotExist) {
						absent[key] = !strings.Contains(string(key), "delete") && !strings.Contains(string(key), "missing")
						return nil, "", blob.ErrNotExist
					}
					return body, tag, err
				}}
			},
		},
		{
			"a bucket behind a cache that remembers what was there",
			[]string{"swap", "delete"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				var mu sync.Mutex
				bodies, tags := map[blob.Key][]byte{}, map[blob.Key]blob.Tag{}
				return &brokenBucket{
					Bucket: m,
					create: func(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
						tag, err := m.Create(ctx, key, body)
						if err == nil && !strings.Contains(string(key), "race") {
							mu.Lock()
							bodies[key], tags[key] = body, tag
							mu.Unlock()
						}
						return tag, err
					},
					get: func(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
						mu.Lock()
						defer mu.Unlock()
						if bodies[key] != nil {
							return bodies[key], tags[key], nil
						}
						return m.Get(ctx, key)
					},
				}
			},
		},
		{
			"a bucket that becomes consistent some reads later",
			[]string{"create", "swap", "delete"},
			[]string{"get"},
			eventual,
		},
		{
			"a bucket that always sends the object",
			[]string{"get-if"},
			[]string{"get-if"},
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, getIf: func(ctx context.Context, key blob.Key, _ blob.Tag) ([]byte, blob.Tag, error) {
					return m.Get(ctx, key)
				}}
			},
		},
		{
			"a bucket that always says unchanged",
			[]string{"get-if"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, getIf: func(context.Context, blob.Key, blob.Tag) ([]byte, blob.Tag, error) {
					return nil, "", blob.ErrUnchanged
				}}
			},
		},
		{
			"a bucket that ignores ranges",
			[]string{"range"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, rang: func(ctx context.Context, key blob.Key, _, n int64) (io.ReadCloser, error) {
					return m.GetRange(ctx, key, 0, n)
				}}
			},
		},
		{
			"a bucket that keeps what is deleted",
			[]string{"delete"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, del: func(context.Context, ...blob.Key) error { return nil }}
			},
		},
		{
			"a bucket that ignores where a listing starts",
			[]string{"list"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, list: func(ctx context.Context, prefix, _ blob.Key) iter.Seq2[blob.Info, error] {
					return m.List(ctx, prefix, "")
				}}
			},
		},
		{
			"a bucket that does not sort",
			[]string{"list"},
			nil,
			func(m *memblob.Bucket) *brokenBucket {
				return &brokenBucket{Bucket: m, list: func(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
					all := map[blob.Key]blob.Info{}
					for info := range m.List(ctx, prefix, after) {
						all[info.Key] = info
					}
					return func(yield func(blob.Info, error) bool) {
						for _, key := range slices.Backward(slices.Sorted(maps.Keys(all))) {
							if !yield(all[key], nil) {
								return
							}
						}
					}
				}}
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := failed(t, c.make(memblob.New()), quick); !slices.Equal(got, c.full) {
				t.Errorf("full probe: failed %v, want %v", got, c.full)
			}
			if c.short == nil {
				return
			}
			if got := failed(t, c.make(memblob.New()), blob.ProbeOptions{Short: true}); !slices.Equal(got, c.short) {
				t.Errorf("short probe: failed %v, want %v", got, c.short)
			}
		})
	}
}

// eventual shows each change to the second reader only.
func eventual(m *memblob.Bucket) *brokenBucket {
	type old struct {
		body []byte
		tag  blob.Tag
		err  error
	}
	var mu sync.Mutex
	stale := map[blob.Key]old{}
	before := func(ctx context.Context, key blob.Key) {
		if strings.Contains(string(key), "race") {
			return
		}
		body, tag, err := m.Get(ctx, key)
		mu.Lock()
		stale[key] = old{body, tag, err}
		mu.Unlock()
	}
	return &brokenBucket{
		Bucket: m,
		get: func(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
			mu.Lock()
			o, ok := stale[key]
			delete(stale, key)
			mu.Unlock()
			if ok {
				return o.body, o.tag, o.err
			}
			return m.Get(ctx, key)
		},
		create: func(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
			if _, _, err := m.Get(ctx, key); err != nil {
				before(ctx, key)
			}
			return m.Create(ctx, key, body)
		},
		swap: func(ctx context.Context, key blob.Key, tag blob.Tag, body []byte) (blob.Tag, error) {
			before(ctx, key)
			return m.Swap(ctx, key, tag, body)
		},
		del: func(ctx context.Context, keys ...blob.Key) error {
			for _, key := range keys {
				before(ctx, key)
			}
			return m.Delete(ctx, keys...)
		},
	}
}
