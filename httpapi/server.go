package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"golang.org/x/sync/semaphore"

	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
)

// server is what the handlers share. Nothing in it changes after New.
type server struct {
	cat     *catalog.Catalog
	chunks  *chunkstore.Store
	auth    *auth.Verifier
	opts    Options
	metrics *serverMetrics
	mux     *http.ServeMux
	delta   *delta // nil if the protocol is not spoken

	// missingSlots bounds how many long get-missing-paths are held in memory at once.
	missingSlots chan struct{}
	texts        textCodec
	decoders     *semaphore.Weighted // memory of those that undo a client's compression
	encodeSlots  chan struct{}       // bounds how many NARs are compressed at once
	listSlots    chan struct{}       // bounds how many listings are made of NARs at once

	// countingSlots bounds how many counts of what pins hold run at once.
	countingSlots chan struct{}
	closureSlots  chan struct{} // bounds how many questions about closures are worked on at once
}

// New returns the handler of the whole HTTP interface.
func New(cat *catalog.Catalog, chunks *chunkstore.Store, v *auth.Verifier, o Options) http.Handler {
	o = o.withDefaults()
	if o.Health == nil {
		o.Health = func(time.Time) Health { return Health{Seq: uint64(cat.Seq())} }
	}
	if o.Deleter == nil {
		o.Deleter = withdrawer{cat}
	}
	s := &server{
		cat:          cat,
		chunks:       chunks,
		auth:         v,
		opts:         o,
		metrics:      newServerMetrics(o.Metrics),
		mux:          http.NewServeMux(),
		delta:        newDelta(o.ReceiptKey, chunks.Limits(), o.Mutants),
		missingSlots: make(chan struct{}, maxLongMissing),

		countingSlots: make(chan struct{}, maxCounting),
		closureSlots:  make(chan struct{}, maxClosureWalks),
		texts:         newTextCodec(),
		decoders:      semaphore.NewWeighted(decoderBytes),
		encodeSlots:   make(chan struct{}, maxEncoders),
		listSlots:     make(chan struct{}, maxListingsMade),
	}
	s.routes()
	if o.TracerProvider == nil {
		return s
	}
	return otelhttp.NewHandler(s, "http",
		otelhttp.WithTracerProvider(o.TracerProvider),
		otelhttp.WithPropagators(propagation.TraceContext{})) // spans join the caller's trace
}

// handler answers one request or says why not.
type handler func(*server, *exchange) error

// missingPathsPattern is the one question that is asked with POST.
const missingPathsPattern = "/_api/v1/get-missing-paths"

// methods are the handlers of one path. GET answers HEAD too.
type methods map[string]handler

// routes fills the mux. A wildcard is a whole segment, so narinfos and NARs are told
// apart by the suffix of {file}; and the API's paths are listed one by one, because a
// catch-all below /_api/ would clash with /{cache}/{file}.
func (s *server) routes() {
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		x := w.(*exchange) // serve puts it there
		x.r = r
		x.fail(errNotFound)
	})
	s.route("/{$}", methods{http.MethodGet: (*server).front})
	s.route("/healthz", methods{http.MethodGet: (*server).healthz})
	s.route("/readyz", methods{http.MethodGet: (*server).readyz})
	s.route("/metrics", methods{http.MethodGet: (*server).exposition})

	s.route("/{cache}/nix-cache-info", methods{http.MethodGet: (*server).nixCacheInfo, http.MethodPut: (*server).putCacheInfo})
	s.route("/{cache}/attic-cache-info", methods{http.MethodGet: (*server).getCacheConfig})
	s.route("/{cache}/{file}", methods{http.MethodGet: (*server).narInfo, http.MethodPut: (*server).putNarInfo})
	s.route("/{cache}/nar/{file}", methods{http.MethodGet: (*server).nar, http.MethodPut: (*server).putNar})
	for pattern := range sideRoutes() {
		s.route(pattern, methods{http.MethodGet: (*server).side, http.MethodPut: (*server).putSide})
	}
	s.route("/{cache}/serve/{path}", methods{http.MethodGet: (*server).serveFile})
	s.route("/{cache}/serve/{path}/{file...}", methods{http.MethodGet: (*server).serveFile})

	s.route(missingPathsPattern, methods{http.MethodPost: (*server).missingPaths})
	s.route("/_api/v1/upload-path", methods{http.MethodPut: (*server).uploadPath})
	s.route("/_api/v1/cache-config/{cache}", methods{
		http.MethodGet:    (*server).getCacheConfig,
		http.MethodPost:   (*server).createCache,
		http.MethodPatch:  (*server).configureCache,
		http.MethodDelete: (*server).destroyCache,
	})

	s.route("/_api/v1/caches", methods{http.MethodGet: (*server).listCaches})
	s.route("/_api/v1/caches/{cache}/paths", methods{http.MethodGet: (*server).listPaths})
	s.route("/_api/v1/caches/{cache}/paths/{hashpart}", methods{
		http.MethodGet:    (*server).getPath,
		http.MethodDelete: (*server).deletePath,
	})
	s.route("/_api/v1/caches/{cache}/pins", methods{http.MethodGet: (*server).listPins})
	s.route("/_api/v1/caches/{cache}/pins/{name...}", methods{
		http.MethodGet:    (*server).pinHistory,
		http.MethodPut:    (*server).setPin,
		http.MethodDelete: (*server).removePin,
	})
	s.route("/_api/v1/caches/{cache}/stats", methods{http.MethodGet: (*server).cacheStats})
	s.route("/_api/v1/stats", methods{http.MethodGet: (*server).stats})
	s.route("/_api/v1/caches/{cache}/delete-paths", methods{http.MethodPost: (*server).deletePaths})
	s.deltaRoutes()
	s.route("/_api/v1/delta/{cache}/paths", methods{http.MethodPost: (*server).deltaPaths})
	s.peerRoutes()
	s.route("/_api/v1/tokens", methods{http.MethodPost: (*server).mintToken})
}

func (s *server) route(pattern string, ms methods) {
	allow := make([]string, 0, len(ms)+1)
	for m := range ms {
		allow = append(allow, m)
		if m == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	slices.Sort(allow)
	allowed := strings.Join(allow, ", ")
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		x := w.(*exchange) // serve puts it there
		x.r = r
		x.route = pattern
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		h, ok := ms[method]
		if !ok {
			w.Header().Set("Allow", allowed)
			x.fail(errMethod)
			return
		}
		if s.opts.Past != "" && method != http.MethodGet && pattern != missingPathsPattern {
			w.Header().Set("Allow", "GET, HEAD")
			x.fail(pastRefusal(s.opts.Past))
			return
		}
		if err := h(s, x); err != nil {
			x.fail(err)
		}
	})
}

// clean reports whether the path can be handed to the mux as it is: it would redirect
// one with empty, "." or ".." segments to somewhere else, where we say 404. A slash at the
// end is left to the routes; only those that end in {name...} take it.
func clean(u *url.URL) bool {
	path := u.EscapedPath()
	if path == "/" {
		return true
	}
	if !strings.HasPrefix(path, "/") {
		return false
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		text, err := url.PathUnescape(segment)
		if err != nil || text == "" || text == "." || text == ".." || strings.ContainsAny(text, "/\\\x00") {
			return false
		}
	}
	return true
}
