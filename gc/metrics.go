package gc

import (
	"errors"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/internal/catalog"
)

const (
	metricRounds    = "celler_gc_rounds_total"
	metricSeconds   = "celler_gc_round_seconds"
	metricPaths     = "celler_gc_removed_paths_total"
	metricRecipes   = "celler_gc_removed_nars_total"
	metricCondemned = "celler_gc_condemned_chunks_total"
	metricDead      = "celler_gc_condemned_bytes_total"
	metricRewritten = "celler_gc_rewritten_packs_total"
	metricWritten   = "celler_gc_written_bytes_total"
	metricDeleted   = "celler_gc_deleted_objects_total"
	metricFreed     = "celler_gc_deleted_bytes_total"
	metricOrphans   = "celler_gc_orphans_total"
	metricUndeleted = "celler_gc_undeleted_objects_total"
	metricRetries   = "celler_gc_retries_total"
	metricOver      = "celler_gc_over_quota"
)

type metricSet struct {
	rounds                                     map[string]*metrics.Counter
	seconds                                    *metrics.PrometheusHistogram
	paths, recipes, condemned, dead, rewritten *metrics.Counter
	written, deleted, freed, orphans           *metrics.Counter
	undeleted, retries                         *metrics.Counter
	over                                       *metrics.Gauge
}

func newMetricSet(set *metrics.Set) *metricSet {
	m := &metricSet{
		rounds:    map[string]*metrics.Counter{},
		seconds:   set.GetOrCreatePrometheusHistogram(metricSeconds),
		paths:     set.GetOrCreateCounter(metricPaths),
		recipes:   set.GetOrCreateCounter(metricRecipes),
		condemned: set.GetOrCreateCounter(metricCondemned),
		dead:      set.GetOrCreateCounter(metricDead),
		rewritten: set.GetOrCreateCounter(metricRewritten),
		written:   set.GetOrCreateCounter(metricWritten),
		deleted:   set.GetOrCreateCounter(metricDeleted),
		freed:     set.GetOrCreateCounter(metricFreed),
		orphans:   set.GetOrCreateCounter(metricOrphans),
		undeleted: set.GetOrCreateCounter(metricUndeleted),
		retries:   set.GetOrCreateCounter(metricRetries),
		over:      set.GetOrCreateGauge(metricOver, nil),
	}
	for _, result := range []string{"done", "idle", "fenced", "failed"} {
		m.rounds[result] = set.GetOrCreateCounter(metricRounds + `{result="` + result + `"}`)
	}
	return m
}

func (m *metricSet) done(r *Report, err error, dur time.Duration) {
	result := "done"
	switch {
	case errors.Is(err, catalog.ErrFenced):
		result = "fenced"
	case err != nil:
		result = "failed"
	case r.Idle():
		result = "idle"
	}
	if r.DryRun {
		return
	}
	m.rounds[result].Inc()
	m.seconds.Update(dur.Seconds())
	m.paths.Add(r.Removed)
	m.recipes.Add(r.Recipes)
	m.condemned.Add(r.Condemned)
	m.dead.AddInt64(r.Dead)
	m.rewritten.Add(r.Rewritten)
	m.written.AddInt64(r.WrittenBytes)
	m.deleted.Add(r.Deleted)
	m.freed.AddInt64(r.DeletedBytes)
	m.orphans.Add(r.Orphans)
	m.undeleted.Add(r.Undeleted)
	m.retries.Add(r.Retries)
	over := 0.0
	if r.OverQuota != nil {
		over = 1
	}
	m.over.Set(over)
}
