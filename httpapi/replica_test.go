package httpapi_test

import (
	"bytes"
	"testing"
)

// TestReplacedPath pushes a path again with other content through one node, and
// fetches what its narinfo names from another, which still has the old content in
// its index. That it finds a path is no reason to deny the NAR.
func TestReplacedPath(t *testing.T) {
	a := mkNode(t, nil)
	b := mkNode(t, a.bucket)
	a.mkCache("c", true)
	first, second := mkPath(t, "p", 1, 1000), mkPath(t, "p", 2, 1000)
	second.Info.StorePath = first.Info.StorePath
	hashPart := first.Info.StorePath.HashPart()
	a.push("c", first)
	old := b.narInfo("c", hashPart, "").URL
	a.push("c", second)
	url := a.narInfo("c", hashPart, "").URL
	got := b.call("GET", "/c/"+url, "", nil).want(t, 200, "")
	if got.StatusCode == 200 && !bytes.Equal(unzstd(t, got.body), second.NAR) {
		t.Error("the other node serves another NAR")
	}
	if got := b.call("GET", "/c/"+old, "", nil).want(t, 200, ""); !bytes.Equal(unzstd(t, got.body), first.NAR) {
		t.Error("the URL of the earlier content means other content now")
	}
	b.call("GET", "/c/"+url[:len(url)-len("x.nar.zst")]+"0.nar.zst", "", nil).want(t, 404, "NoSuchObject")
}
