package catalog

import "github.com/VictoriaMetrics/metrics"

type metricSet struct {
	catchUps  *metrics.Counter
	published *metrics.Counter
	withdrawn *metrics.Counter
	resigned  *metrics.Counter
	refused   *metrics.Counter
}

func newMetricSet(set *metrics.Set) *metricSet {
	return &metricSet{
		catchUps:  set.GetOrCreateCounter("celler_catalog_catchups_total"),
		published: set.GetOrCreateCounter("celler_catalog_published_total"),
		withdrawn: set.GetOrCreateCounter("celler_catalog_withdrawn_total"),
		resigned:  set.GetOrCreateCounter("celler_catalog_resigned_total"),
		refused:   set.GetOrCreateCounter("celler_catalog_chunks_missing_total"),
	}
}
