package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"path"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// again checks that what was decoded survives being written and read once more.
func again[T any](t *testing.T, v T, decode func([]byte) (T, error)) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	back, err := decode(text)
	if err != nil {
		t.Fatalf("%s: own text is refused: %v", text, err)
	}
	if diff := cmp.Diff(v, back); diff != "" {
		t.Fatal(diff)
	}
}

func FuzzUploadInfo(f *testing.F) {
	f.Add([]byte(`{"cache":"c","store_path_hash":"h","store_path":"p","references":["r"],"system":null,"deriver":"d","sigs":["s"],"ca":"x","nar_hash":"n","nar_size":7}`))
	f.Add([]byte(`{"cache":"c","store_path_hash":"h","store_path":"p","references":[],"sigs":[],"nar_hash":"n","nar_size":7,"pin":{"name":"main","policy":{"keep_days":3}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if u, err := DecodeUploadInfo(body); err == nil {
			again(t, u, DecodeUploadInfo)
		}
	})
}

func FuzzCacheBodies(f *testing.F) {
	f.Add([]byte(`{"keypair":"Generate","is_public":true,"store_dir":"/s","priority":1,"upstream_cache_key_names":[],"retention_period":"Global"}`))
	f.Add([]byte(`{"keypair":{"Keypair":"k:s"},"is_public":true,"store_dir":"/s","priority":1,"upstream_cache_key_names":["a"],"retention_period":{"Period":1}}`))
	f.Add([]byte(`{"subject":"s","valid_for":1,"rules":[{"pattern":"*","permissions":["pull"]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if c, err := DecodeCreateCache(body); err == nil {
			again(t, c, DecodeCreateCache)
		}
		if c, err := DecodeCacheConfig(body); err == nil {
			again(t, c, DecodeCacheConfig)
		}
		if r, err := DecodeTokenRequest(body); err == nil {
			again(t, r, DecodeTokenRequest)
		}
	})
}

func FuzzPinBodies(f *testing.F) {
	f.Add([]byte(`{"store_path":"/nix/store/x","policy":{"keep_revisions":1,"keep_days":2,"keep_forever":true},"present":true}`))
	f.Add([]byte(`{"store_path":"","policy":null,"present":null,"x":[{}]}`))
	f.Add([]byte(`{"paths":["a","b"],"closure":true,"dry_run":false,"now":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if p, err := DecodePinRequest(body); err == nil {
			if q := p.Policy; q != nil && (q.KeepRevisions < 0 || q.KeepDays < 0) {
				t.Fatalf("policy %+v is taken", q)
			}
			again(t, p, DecodePinRequest)
		}
		if r, err := DecodeDeleteRequest(body); err == nil {
			again(t, r, DecodeDeleteRequest)
		}
	})
}

// FuzzCheckPinName: what is a name can be a URL, and comes out of it as it went in.
func FuzzCheckPinName(f *testing.F) {
	f.Add("release/24.05")
	f.Add("a/../b")
	f.Add("https://x@y+z_0")
	f.Fuzz(func(t *testing.T, name string) {
		if CheckPinName(name) != nil {
			return
		}
		u, err := url.Parse("http://h/pins/" + name)
		if err != nil || u.Path != "/pins/"+name || path.Clean(u.Path) != u.Path || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("%q becomes %+v, %v", name, u, err)
		}
	})
}

func FuzzMissingPaths(f *testing.F) {
	f.Add([]byte(`{"cache":"c","store_path_hashes":["` + part1 + `"]}`))
	f.Add([]byte(`{"store_path_hashes":[],"x":[{}],"cache":"c"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		const limit = 3
		_, parts, err := DecodeMissingPaths(bytes.NewReader(body), limit, nil)
		if len(parts) > limit || err != nil && parts != nil {
			t.Fatalf("%d parts, %v", len(parts), err)
		}
	})
}

func FuzzDeltaBodies(f *testing.F) {
	f.Add([]byte(`{"paths":[{"store_path":"p","nar_hash":"h","nar_size":1,"references":["r"],"deriver":"d","system":"s","ca":"c","sigs":["x"],"pin":{"name":"n"},"receipts":["AAAA"]}]}`))
	f.Add([]byte(`{"paths":[{"store_path":"p","nar_hash":"h","nar_size":1,"receipts":[]}],"y":1}`))
	f.Add([]byte(`{"receipts":["AAAA","BBBB"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		const limit = 2
		if r, err := DecodeCommit(body, limit); err == nil {
			if len(r.Paths) > limit || len(r.Paths) == 0 {
				t.Fatalf("%d paths", len(r.Paths))
			}
			for i := range r.Paths { // absent and empty are the same
				p := &r.Paths[i]
				if len(p.References) == 0 {
					p.References = nil
				}
				if len(p.Sigs) == 0 {
					p.Sigs = nil
				}
			}
			again(t, r, func(b []byte) (CommitRequest, error) { return DecodeCommit(b, limit) })
		}
		if r, err := DecodeJoin(body); err == nil {
			again(t, r, DecodeJoin)
		}
	})
}

// FuzzBatch: what is a batch is the only spelling of its items.
func FuzzBatch(f *testing.F) {
	f.Add(goldenBatch())
	f.Add([]byte("CDB1S\x00E"))
	f.Fuzz(func(t *testing.T, body []byte) {
		limits := testLimits()
		r := NewBatchReader(bytes.NewReader(body), limits)
		out := AppendBatch(nil)
		plain, known := int64(0), 0
		for {
			item, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				if _, again := r.Next(); again == nil || again.Error() != err.Error() {
					t.Fatalf("after %v: %v", err, again)
				}
				return
			}
			switch item.Kind {
			case BatchSegment:
				out = AppendSegment(out, item.State)
				plain, known = 0, 0
			case BatchFrame:
				for _, n := range item.Sizes {
					plain += int64(n)
				}
				if len(item.Names) != len(item.Sizes) || plain > limits.SegmentBytes || cap(item.Frame) > 2*limits.EncodedFrameBytes()+128<<10 {
					t.Fatalf("%d names, %d sizes, %d plain bytes, %d bytes of memory", len(item.Names), len(item.Sizes), plain, cap(item.Frame))
				}
				out = AppendFrame(out, item.Names, item.Sizes, item.Frame)
			case BatchKnown:
				if known += len(item.Refs); known > limits.KnownChunks() {
					t.Fatalf("%d known chunks", known)
				}
				out = AppendKnown(out, item.Refs)
			case BatchEnd:
				out = AppendSegmentEnd(out)
			}
		}
		if !bytes.Equal(out, body) {
			t.Fatalf("%x is read as %x", body, out)
		}
	})
}

func FuzzReadHashParts(f *testing.F) {
	f.Add([]byte("twenty bytes or soooo"))
	f.Fuzz(func(t *testing.T, body []byte) {
		hashParts, err := ReadHashParts(bytes.NewReader(body), 3)
		if whole := len(body)%HashPartBytes == 0 && len(body) <= 3*HashPartBytes; whole != (err == nil) {
			t.Fatalf("%d bytes: %v", len(body), err)
		}
		if err == nil && !bytes.Equal(AppendHashParts(nil, hashParts), body) {
			t.Fatalf("%x was read as %v", body, hashParts)
		}
	})
}
