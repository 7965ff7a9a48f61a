package fsck

import "github.com/VictoriaMetrics/metrics"

const (
	metricRead     = "celler_scrub_read_bytes_total"
	metricObjects  = "celler_scrub_objects_total"
	metricOldest   = "celler_scrub_oldest_seconds"
	metricUnread   = "celler_scrub_unread_objects"
	metricDamaged  = "celler_scrub_damaged_objects"
	metricFailures = "celler_scrub_failures_total"
)

type metricSet struct {
	bytes, objects, failures *metrics.Counter
	oldest, unread, damaged  *metrics.Gauge
}

func newMetricSet(set *metrics.Set) *metricSet {
	return &metricSet{
		bytes: set.GetOrCreateCounter(metricRead), objects: set.GetOrCreateCounter(metricObjects), failures: set.GetOrCreateCounter(metricFailures),
		oldest: set.GetOrCreateGauge(metricOldest, nil), unread: set.GetOrCreateGauge(metricUnread, nil), damaged: set.GetOrCreateGauge(metricDamaged, nil),
	}
}

func (m *metricSet) read(bytes int64) { m.bytes.AddInt64(bytes) }

func (m *metricSet) status(st *Status) {
	age, _ := st.Within()
	m.oldest.Set(age.Seconds())
	m.unread.Set(float64(st.Unread))
	m.damaged.Set(float64(len(st.Damaged)))
}
