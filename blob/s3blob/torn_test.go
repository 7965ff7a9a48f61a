package s3blob_test

import (
	"crypto/md5"
	"fmt"
	"net/http"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/s3blob"
)

func tagOfBody(body string) string {
	return fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum([]byte(body))))
}

// TestTornAnswers has a server that once answers with the bytes of one version and the tag
// of the next.
func TestTornAnswers(t *testing.T) {
	b := played(t, s3blob.Options{}, func(n int, _ *http.Request) answer {
		body := "new"
		if n == 0 {
			body = "old"
		}
		return answer{status: 200, body: body, header: map[string]string{"ETag": tagOfBody("new")}}
	})
	body, tag, err := b.Get(t.Context(), "x")
	if string(body) != "new" || tag != blob.Tag(tagOfBody("new")) || err != nil {
		t.Errorf("%q with tag %s: %v, want the new version with its own", body, tag, err)
	}
}

// TestTagsThatAreNoHashes has a server whose tags are something else, always: it is asked
// again for the first objects, and then believed.
func TestTagsThatAreNoHashes(t *testing.T) {
	requests := 0
	b := played(t, s3blob.Options{}, func(int, *http.Request) answer {
		requests++
		return answer{status: 200, body: "bytes", header: map[string]string{"ETag": tagOfBody("encrypted bytes")}}
	})
	for range 10 {
		if body, _, err := b.Get(t.Context(), "x"); string(body) != "bytes" || err != nil {
			t.Fatalf("%q, %v", body, err)
		}
	}
	if requests != 13 {
		t.Errorf("%d requests for 10 objects, want one more for each of the first 3", requests)
	}
}

// TestAlwaysTorn: an object that is replaced all the time is an error in the end, and not
// taken for what it is not.
func TestAlwaysTorn(t *testing.T) {
	b := played(t, s3blob.Options{}, func(n int, _ *http.Request) answer {
		return answer{status: 200, body: fmt.Sprint("version ", n), header: map[string]string{"ETag": tagOfBody(fmt.Sprint("version ", n+1))}}
	})
	if body, _, err := b.Get(t.Context(), "x"); err == nil {
		t.Errorf("%q, want an error", body)
	}
}
