package httpapi

import (
	"bytes"
	"errors"
	"fmt"
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
