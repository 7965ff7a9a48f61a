package httpapi

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/semaphore"

	"github.com/celler/celler/internal/compression"
)

// Some who send compressed NARs byte by byte hold all the memory there is for that. Who
// comes after them is told so, and not left waiting for as long as they please.
func TestDecodersAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{decoders: semaphore.NewWeighted(decoderBytes)}
		s.opts = s.opts.withDefaults()
		x := &exchange{s: s, r: httptest.NewRequestWithContext(t.Context(), "PUT", "/", nil)}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(s.decoders.Acquire(t.Context(), decoderBytes))
		_, _, err := x.decompress(compression.Brotli, strings.NewReader(""))
		if r, ok := errors.AsType[*refusal](err); !ok || r.message != errBusy.message {
			t.Errorf("%v, want %v", err, errBusy)
		}
		s.decoders.Release(decoderBytes)
		_, stop, err := x.decompress(compression.Brotli, strings.NewReader(""))
		must(err)
		stop()
		must(s.decoders.Acquire(t.Context(), decoderBytes)) // all of it is back
	})
}
