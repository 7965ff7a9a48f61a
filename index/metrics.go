package index

import "github.com/VictoriaMetrics/metrics"

const (
	metricSeq          = "celler_index_seq"
	metricApplySeconds = "celler_index_apply_seconds"
	metricEntries      = "celler_index_entries_total"
	metricDiskBytes    = "celler_index_disk_bytes"
	metricBootstrap    = "celler_index_bootstrap_seconds"
	metricFetched      = "celler_index_fetched_bytes_total"
	metricLayers       = "celler_index_layers"
)

type metricSet struct {
	set     *metrics.Set
	apply   *metrics.PrometheusHistogram
	entries *metrics.Counter

	bootstrap *metrics.PrometheusHistogram
	fetched   *metrics.Counter
}

// newMetricSet registers the metrics of db. The gauges read from it until
// close takes them away again.
func newMetricSet(set *metrics.Set, db *DB) *metricSet {
	set.GetOrCreateGauge(metricSeq, func() float64 {
		seq, _, _ := db.Position()
		return float64(seq)
	})
	set.GetOrCreateGauge(metricDiskBytes, func() float64 { return float64(db.DiskBytes()) })
	set.GetOrCreateGauge(metricLayers, func() float64 { return float64(db.layers()) })
	return &metricSet{
		set:     set,
		apply:   set.GetOrCreatePrometheusHistogram(metricApplySeconds),
		entries: set.GetOrCreateCounter(metricEntries),

		bootstrap: set.GetOrCreatePrometheusHistogram(metricBootstrap),
		fetched:   set.GetOrCreateCounter(metricFetched),
	}
}

func (m *metricSet) close() {
	m.set.UnregisterMetric(metricSeq)
	m.set.UnregisterMetric(metricDiskBytes)
	m.set.UnregisterMetric(metricLayers)
}
