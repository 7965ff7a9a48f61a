package httpapi_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/celler/celler/httpapi/wire"
)

// FuzzNarInfoHeader sends any upload info with any body. Whatever happens, the answer is
// a 4xx, or the path is there.
func FuzzNarInfoHeader(f *testing.F) {
	n := mkNode(f, nil)
	n.mkCache("c", false)
	p := mkPath(f, "p", 1, 100)
	token := n.root()
	f.Add(jsonText(infoOf("c", p)), p.NAR)
	f.Add(`{"cache":"c"}`, []byte{})
	f.Add(`{`, []byte("x"))
	f.Fuzz(func(t *testing.T, info string, body []byte) {
		r := httptest.NewRequest("PUT", "/_api/v1/upload-path", strings.NewReader(string(body)))
		r.Header.Set("Authorization", "bearer "+token)
		r.Header.Set(wire.HeaderAtticNarInfo, info)
		w := httptest.NewRecorder()
		n.srv.Config.Handler.ServeHTTP(w, r)
		if w.Code != 200 && (w.Code < 400 || w.Code > 499) {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}

// FuzzURL asks for any path as an anonymous caller of a node without public caches.
func FuzzURL(f *testing.F) {
	n := mkNode(f, nil)
	n.mkCache("c", false)
	for _, path := range []string{"/", "/c/nix-cache-info", "/c/00bgd045z0d4icpbc2yyz4gx48ak44la.narinfo", "/c/nar/x.nar.zst", "/_api/v1/cache-config/c", "/%2e%2e/c"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest("GET", "/", nil)
		u, err := r.URL.Parse("http://h/" + path)
		if err != nil {
			return
		}
		r.URL, r.Host = u, "h"
		w := httptest.NewRecorder()
		n.srv.Config.Handler.ServeHTTP(w, r)
		switch w.Code {
		case 200:
			switch u.Path {
			case "/", "/healthz", "/readyz", "/metrics", "/_api/v1/caches":
			default:
				t.Fatalf("%q: status 200", path)
			}
		case 400, 401, 404, 405:
		default:
			t.Fatalf("%q: status %d: %s", path, w.Code, w.Body)
		}
	})
}
