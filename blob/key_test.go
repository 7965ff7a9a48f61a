package blob_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/celler/celler/blob"
)

func TestKeyValid(t *testing.T) {
	ok := func(in string) {
		t.Helper()
		if err := blob.Key(in).Valid(); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	}
	bad := func(in, why string) {
		t.Helper()
		err := blob.Key(in).Valid()
		keyErr, isKey := errors.AsType[*blob.KeyError](err)
		if !isKey || !strings.Contains(keyErr.Reason, why) {
			t.Errorf("%q: got %v, want a reason that contains %q", in, err, why)
		}
	}

	ok("ROOT")
	ok("log/0000000000000001")
	ok("pack/0000000a/00000000000000ff")
	ok("a-b_c.d=e@f/...")
	ok(strings.Repeat("k", blob.MaxSegmentBytes))
	bad("", "empty")
	bad("/a", "empty segment")
	bad("a/", "empty segment")
	bad("a//b", "empty segment")
	bad("a/./b", `segment "."`)
	bad("..", `segment ".."`)
	bad("a b", "offset 1")
	bad("a,b", "offset 1")
	bad("grün", "offset 2")
	bad("a\x00", "offset 1")
	bad(strings.Repeat("k", blob.MaxSegmentBytes+1), "segment longer")
	bad(strings.Repeat("k/", 300), "longer than 512")
}

func FuzzKey(f *testing.F) {
	f.Add("log/1")
	f.Add("a/../b")
	f.Fuzz(func(t *testing.T, s string) {
		key := blob.Key(s)
		if key.Valid() != nil {
			return
		}
		// Every beginning of a valid key may be listed.
		for i := range s {
			if err := key[:i].ValidPrefix(); err != nil {
				t.Errorf("%q is valid, but its beginning %q is not: %v", s, s[:i], err)
			}
		}
		if strings.Contains(s, "\\") || strings.HasPrefix(s, "/") || strings.Contains("/"+s+"/", "/../") {
			t.Errorf("%q is valid", s)
		}
	})
}
