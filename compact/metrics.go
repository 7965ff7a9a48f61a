package compact

import (
	"errors"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/wal"
)

const (
	metricRounds    = "celler_compact_rounds_total"
	metricSeconds   = "celler_compact_round_seconds"
	metricSegments  = "celler_compact_folded_segments_total"
	metricMerges    = "celler_compact_merges_total"
	metricWritten   = "celler_compact_written_bytes_total"
	metricRead      = "celler_compact_read_bytes_total"
	metricDeleted   = "celler_compact_deleted_objects_total"
	metricUndeleted = "celler_compact_undeleted_objects_total"
	metricSeq       = "celler_compact_snapshot_seq"
	metricBytes     = "celler_compact_snapshot_bytes"
	metricRuns      = "celler_compact_snapshot_runs"
)

type metricSet struct {
	rounds                                              map[string]*metrics.Counter
	seconds                                             *metrics.PrometheusHistogram
	segments, merges, written, read, deleted, undeleted *metrics.Counter
	seq, bytes, runs                                    *metrics.Gauge
}

func newMetricSet(set *metrics.Set) *metricSet {
	m := &metricSet{
		rounds:    map[string]*metrics.Counter{},
		seconds:   set.GetOrCreatePrometheusHistogram(metricSeconds),
		segments:  set.GetOrCreateCounter(metricSegments),
		merges:    set.GetOrCreateCounter(metricMerges),
		written:   set.GetOrCreateCounter(metricWritten),
		read:      set.GetOrCreateCounter(metricRead),
		deleted:   set.GetOrCreateCounter(metricDeleted),
		undeleted: set.GetOrCreateCounter(metricUndeleted),
		seq:       set.GetOrCreateGauge(metricSeq, nil),
		bytes:     set.GetOrCreateGauge(metricBytes, nil),
		runs:      set.GetOrCreateGauge(metricRuns, nil),
	}
	for _, result := range []string{"done", "idle", "busy", "fenced", "failed"} {
		m.rounds[result] = set.GetOrCreateCounter(metricRounds + `{result="` + result + `"}`)
	}
	return m
}

func (m *metricSet) done(r *Report, err error, dur time.Duration) {
	result := "done"
	switch {
	case errors.Is(err, wal.ErrFenced):
		result = "fenced"
	case err != nil:
		result = "failed"
	case r.Busy != nil:
		result = "busy"
	case r.Idle():
		result = "idle"
	}
	m.rounds[result].Inc()
	m.seconds.Update(dur.Seconds())
	if r.DryRun {
		return
	}
	m.segments.Add(r.Segments)
	m.merges.Add(r.Merges)
	m.written.AddInt64(r.BytesWritten)
	m.read.AddInt64(r.BytesRead)
	m.deleted.Add(r.SlotsDeleted + r.SnapshotsDeleted + r.TablesDeleted)
	m.undeleted.Add(r.Undeleted)
	if err == nil {
		m.seq.Set(float64(r.Snapshot))
		m.bytes.Set(float64(r.Bytes))
		m.runs.Set(float64(r.Runs))
	}
}
