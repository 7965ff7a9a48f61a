package telemetry

import (
	"net/http"

	"github.com/VictoriaMetrics/metrics"
)

// NewMetrics returns an empty set.
func NewMetrics() *metrics.Set { return metrics.NewSet() }

// MetricsHandler answers a scrape with the set and with what is known of the process:
// memory, processor time, open files, goroutines, garbage collection.
func MetricsHandler(set *metrics.Set) http.Handler {
	metrics.ExposeMetadata(true) // "# TYPE" lines, which some scrapers insist on
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		set.WritePrometheus(w)
		metrics.WriteProcessMetrics(w)
	})
}
