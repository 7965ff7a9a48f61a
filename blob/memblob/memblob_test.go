package memblob_test

import (
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/memblob"
)

func TestBucket(t *testing.T) {
	blobtest.Run(t, func(testing.TB) blob.Bucket { return memblob.New() })
}

func TestKeyBelowObject(t *testing.T) {
	b := memblob.New()
	if _, err := b.Create(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(t.Context(), "a/b", nil); err == nil {
		t.Error("an object was created below another: no file system could hold both")
	}
}
