package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/celler/celler/nix/nar"
)

// TestFrugalLooksIntoLongFilesOnly: NARs of few files are read to their end, those of many
// are given up, and neither is taken for broken.
func TestFrugalLooksIntoLongFilesOnly(t *testing.T) {
	s := &server{texts: newTextCodec()}
	for files, want := range map[int]error{3: nil, 1000: errFrugal} {
		var b bytes.Buffer
		w := nar.NewWriter(&b)
		err := w.Directory("")
		for i := range files {
			content := make([]byte, 300_000)
			err = errors.Join(err, w.Regular(fmt.Sprintf("f%04d", i), false, int64(len(content))))
			_, werr := w.Write(content)
			err = errors.Join(err, werr)
		}
		if err = errors.Join(err, w.EndDirectory(), w.Close()); err != nil {
			t.Fatal(err)
		}
		_, err = s.walkNar(&frugal{ReadSeeker: bytes.NewReader(b.Bytes()), seeks: deltaCheckSeeks, bytes: deltaCheckBytes})
		if !errors.Is(err, want) {
			t.Errorf("%d files: %v, want %v", files, err, want)
		}
	}
}

// TestListNarOfNonsense: who asks for the listing of what was taken by its hash and is no
// NAR is not told that chunks are missing, nor to come again.
func TestListNarOfNonsense(t *testing.T) {
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	err := errors.Join(w.Directory(""), w.Regular("one", false, 0), w.Regular("two", false, 0), w.EndDirectory(), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	for name, c := range map[string]struct {
		plain  []byte
		status int
	}{
		"unsorted": {bytes.Replace(whole, []byte("two"), []byte("abc"), 1), http.StatusNotImplemented},
		"slash":    {bytes.Replace(whole, []byte("two"), []byte("t/o"), 1), http.StatusNotImplemented},
		"cut off":  {whole[:len(whole)-8], http.StatusServiceUnavailable},
	} {
		_, err := listNar(bytes.NewReader(c.plain))
		if err == nil || translate(err).status != c.status {
			t.Errorf("%s: %v, want status %d", name, err, c.status)
		}
	}
	if _, err := listNar(bytes.NewReader(whole)); err != nil {
		t.Error(err)
	}
}
