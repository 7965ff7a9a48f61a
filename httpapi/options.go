package httpapi

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/otel/trace"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// Options of the handler. The zero value works.
type Options struct {
	Logger         *slog.Logger         // one line per request; nil: none
	Metrics        *metrics.Set         // celler_http_*; nil: a private set
	MetricsHandler http.Handler         // answers GET /metrics; nil: the Metrics set
	TracerProvider trace.TracerProvider // nil: no spans

	// Health says how far the node is behind. nil: always ready, at the catalog's position.
	Health func(now time.Time) Health

	// Past, if not "", says which state of the past this handler shows: requests that
	// would change something are refused, and bytes may be missing for good.
	Past string

	// Peers is the node's end of the conversation between servers of one bucket.
	// nil: there is none.
	Peers Peers

	Now  func() time.Time // nil: time.Now
	Rand io.Reader        // key pairs and token ids; nil: crypto/rand

	// Uses is told what is used, so that it is not collected. nil: nobody is.
	Uses Uses
	// Deleter removes paths. nil: one that can withdraw them and no more.
	Deleter Deleter
	// ReceiptKey is a secret that all servers of the bucket share, for what they give to
	// clients of the delta protocol and get back. nil: the protocol is not spoken.
	ReceiptKey []byte
	// RefuseAbsentReferences refuses a path whose references are not in its cache, whichever
	// way it comes.
	RefuseAbsentReferences bool
	// TrustHashes believes an uploader who names a NAR that the store has: its bytes are
	// not asked for, and whoever knows the hash of a NAR of any cache obtains it.
	TrustHashes bool

	// AllowedHosts, if not empty, are the only Host headers answered, compared
	// exactly, port included.
	AllowedHosts []string
	// APIEndpoint is how clients reach this API, with a slash at the end. Default: what the request says.
	APIEndpoint string
	// SubstituterEndpoint is how Nix reaches the caches, with a slash at the end. Default: the API endpoint.
	SubstituterEndpoint string

	MaxUploadInfoBytes int           // default 1 MiB
	MaxNarBytes        int64         // longest NAR taken, in plain bytes; default 1 TiB
	MaxMissingPaths    int           // hash parts in one get-missing-paths; default 1,500,000
	StallTimeout       time.Duration // a peer that moves no byte for so long is cut off; default 2 minutes
	WaitTimeout        time.Duration // how long Celler-Min-Seq waits; default 5 s
	PublishTimeout     time.Duration // for the commit after an upload; default 1 minute

	// Mutants breaks single rules in builds with the tag "mutant". It is empty in
	// all others.
	Mutants Mutants
}

// Uses is told what is used. A path that is used does not grow old.
type Uses interface {
	// Downloaded says that the NAR of a path is about to be sent. It must not block.
	Downloaded(cache catalog.CacheName, hashPart nix.HashPart)
	// Present says that somebody is about to be told that these paths need not be
	// pushed. If one of them might be collected soon its use has to be durable when
	// Present returns, and recorded is true: then it is asked again what there is,
	// since what went before that could not be saved by it.
	Present(ctx context.Context, cache catalog.CacheName, hashParts []nix.HashPart) (recorded bool, err error)
}

// noUses is nobody who wants to know.
type noUses struct{}

func (noUses) Downloaded(catalog.CacheName, nix.HashPart) {}
func (noUses) Present(context.Context, catalog.CacheName, []nix.HashPart) (bool, error) {
	return false, nil
}

// Health is a node's own judgement.
type Health struct {
	Seq       uint64        // last applied position
	Staleness time.Duration // since the last successful catch-up began
	Stale     bool          // too stale to answer: requests are refused with 503
	Err       error         // why the node is not ready though it may answer, e.g. a forked log
}

const (
	defaultMaxUploadInfoBytes = 1 << 20
	defaultMaxNarBytes        = 1 << 40
	defaultMaxMissingPaths    = 1_500_000
	defaultStallTimeout       = 2 * time.Minute
	defaultWaitTimeout        = 5 * time.Second
	defaultPublishTimeout     = time.Minute
)

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.MetricsHandler == nil {
		set := o.Metrics
		o.MetricsHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			set.WritePrometheus(w)
		})
	}
	if o.Uses == nil {
		o.Uses = noUses{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	def(&o.MaxUploadInfoBytes, defaultMaxUploadInfoBytes)
	def(&o.MaxNarBytes, defaultMaxNarBytes)
	def(&o.MaxMissingPaths, defaultMaxMissingPaths)
	def(&o.StallTimeout, defaultStallTimeout)
	def(&o.WaitTimeout, defaultWaitTimeout)
	def(&o.PublishTimeout, defaultPublishTimeout)
	return o
}

// def puts v where nothing usable was set.
func def[T int | int64 | time.Duration](to *T, v T) {
	if *to <= 0 {
		*to = v
	}
}
