package httpapi

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// serverMetrics are the metrics of this package. Labels are routes (a closed set of
// patterns) and status codes, never anything a caller can choose.
type serverMetrics struct {
	set      *metrics.Set
	inFlight atomic.Int64
	sent     *metrics.Counter
	received *metrics.Counter
	torn     *metrics.Counter
	seconds  sync.Map // requestKey → *metrics.PrometheusHistogram

	uploads     *metrics.Counter
	dedupedNars *metrics.Counter

	deltaQueried, deltaMissing, deltaSent, deltaKnown   *metrics.Counter // chunks
	deltaSegments, deltaPaths, deltaPresent, deltaStale *metrics.Counter
	deltaUnchecked                                      *metrics.Counter

	putNars   *metrics.Counter
	putPaths  *metrics.Counter
	putSides  *metrics.Counter
	otherNars *metrics.Counter
	listings  *metrics.Counter
}

type requestKey struct {
	route  string
	status int
}

func newServerMetrics(set *metrics.Set) *serverMetrics {
	m := &serverMetrics{
		set:         set,
		sent:        set.GetOrCreateCounter("celler_http_response_bytes_total"),
		received:    set.GetOrCreateCounter("celler_http_request_bytes_total"),
		torn:        set.GetOrCreateCounter("celler_http_responses_torn_total"),
		uploads:     set.GetOrCreateCounter("celler_http_uploads_total"),
		dedupedNars: set.GetOrCreateCounter("celler_http_uploads_deduplicated_total"),
		putNars:     set.GetOrCreateCounter("celler_http_put_nars_total"),
		putPaths:    set.GetOrCreateCounter("celler_http_put_paths_total"),
		putSides:    set.GetOrCreateCounter("celler_http_put_side_objects_total"),
		otherNars:   set.GetOrCreateCounter("celler_http_other_nars_refused_total"),
		listings:    set.GetOrCreateCounter("celler_http_listings_made_total"),
	}
	m.deltaQueried = set.GetOrCreateCounter("celler_http_delta_queried_chunks_total")
	m.deltaMissing = set.GetOrCreateCounter("celler_http_delta_missing_chunks_total")
	m.deltaSent = set.GetOrCreateCounter("celler_http_delta_sent_chunks_total")
	m.deltaKnown = set.GetOrCreateCounter("celler_http_delta_known_chunks_total")
	m.deltaSegments = set.GetOrCreateCounter("celler_http_delta_segments_total")
	m.deltaPaths = set.GetOrCreateCounter("celler_http_delta_paths_total")
	m.deltaUnchecked = set.GetOrCreateCounter("celler_http_delta_unchecked_nars_total")
	m.deltaPresent = set.GetOrCreateCounter("celler_http_delta_present_paths_total")
	m.deltaStale = set.GetOrCreateCounter("celler_http_delta_stale_commits_total")
	set.GetOrCreateGauge("celler_http_requests_in_flight", func() float64 { return float64(m.inFlight.Load()) })
	return m
}

func (m *serverMetrics) observe(route string, status int, dur time.Duration, sent, received int64) {
	m.sent.AddInt64(sent)
	m.received.AddInt64(received)
	key := requestKey{route, status}
	h, ok := m.seconds.Load(key)
	if !ok {
		name := fmt.Sprintf("celler_http_request_seconds{route=%q,code=\"%d\"}", route, status)
		h, _ = m.seconds.LoadOrStore(key, m.set.GetOrCreatePrometheusHistogram(name))
	}
	h.(*metrics.PrometheusHistogram).Update(dur.Seconds())
}
