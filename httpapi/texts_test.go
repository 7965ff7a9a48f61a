package httpapi

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/semaphore"

	"github.com/celler/celler/blob/chunk"
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

// So many who ask for NARs in slow compressions do not take the server from the others.
func TestEncodersAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{encodeSlots: make(chan struct{}, maxEncoders)}
		s.opts = s.opts.withDefaults()
		x := &exchange{s: s, r: httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)}
		var taken []func()
		for range maxEncoders {
			done, err := x.encoder()
			if err != nil {
				t.Fatal(err)
			}
			taken = append(taken, done)
		}
		x.w = httptest.NewRecorder()
		if err := x.sendEncoded(&chunk.Recipe{}, compression.Bzip2); err == nil || translate(err).status != 503 || translate(err).retryAfter == 0 {
			t.Errorf("one more: %v, want to be asked to come again", err)
		}
		for _, done := range taken {
			done()
		}
		if len(s.encodeSlots) != 0 {
			t.Errorf("%d are still taken", len(s.encodeSlots))
		}
	})
}
