package wal

import (
	"github.com/VictoriaMetrics/metrics"
)

// logMetrics are the numbers a Log reports. Their names are part of its interface.
type logMetrics struct {
	commitSeconds  *metrics.Histogram // from the start of a batch to its acknowledgement
	segmentBytes   *metrics.Histogram // of own segments, as stored
	batchOps       *metrics.Histogram
	catchUpSeconds *metrics.Histogram
	applied        *metrics.Counter
	lost           *metrics.Counter // slots that went to somebody else
	unanswered     *metrics.Counter // creates without an answer, or followed by none from ROOT
	phantoms       *metrics.Counter // creates won in a slot that had been truncated
	fenced         *metrics.Counter
	hedgedCreates  hedgeCounts
	hedgedReads    hedgeCounts
	turnsWanted    *metrics.Counter // that we asked a leader for
	turnsLeft      *metrics.Counter // that we left to who asked
	bootstraps     *metrics.Counter
	catchUpOK      *metrics.Counter
	catchUpFailed  *metrics.Counter
	hints          map[string]*metrics.Counter // what Hint was told, a closed set; read only
	forwards       map[string]*metrics.Counter // what became of messages to peers, a closed set; read only
	results        map[string]*metrics.Counter // outcome of Commit, a closed set; read only
	seq            *metrics.Gauge
	inDoubt        *metrics.Gauge // 1 while a batch is in doubt for longer than Options.GiveUp
	failed         *metrics.Gauge // 1 once the log is read-only for good
	queue          *metrics.Gauge // operations that wait for a slot
}

func newLogMetrics(set *metrics.Set) *logMetrics {
	m := &logMetrics{
		commitSeconds:  set.GetOrCreateHistogram("celler_wal_commit_seconds"),
		segmentBytes:   set.GetOrCreateHistogram("celler_wal_segment_bytes"),
		batchOps:       set.GetOrCreateHistogram("celler_wal_batch_ops"),
		catchUpSeconds: set.GetOrCreateHistogram("celler_wal_catch_up_seconds"),
		applied:        set.GetOrCreateCounter("celler_wal_applied_segments_total"),
		lost:           set.GetOrCreateCounter("celler_wal_lost_slots_total"),
		unanswered:     set.GetOrCreateCounter("celler_wal_unanswered_creates_total"),
		phantoms:       set.GetOrCreateCounter("celler_wal_phantoms_total"),
		fenced:         set.GetOrCreateCounter("celler_wal_fenced_writers_total"),
		bootstraps:     set.GetOrCreateCounter("celler_wal_bootstraps_total"),
		catchUpOK:      set.GetOrCreateCounter(`celler_wal_catch_ups_total{result="ok"}`),
		catchUpFailed:  set.GetOrCreateCounter(`celler_wal_catch_ups_total{result="failed"}`),
		seq:            set.GetOrCreateGauge("celler_wal_seq", nil),
		inDoubt:        set.GetOrCreateGauge("celler_wal_in_doubt", nil),
		failed:         set.GetOrCreateGauge("celler_wal_failed", nil),
		queue:          set.GetOrCreateGauge("celler_wal_queued_ops", nil),
		results:        make(map[string]*metrics.Counter),
		hints:          make(map[string]*metrics.Counter),
		forwards:       make(map[string]*metrics.Counter),
		hedgedCreates:  newHedgeCounts(set, "create"),
		hedgedReads:    newHedgeCounts(set, "read"),
		turnsWanted:    set.GetOrCreateCounter(`celler_wal_turns_total{turn="asked"}`),
		turnsLeft:      set.GetOrCreateCounter(`celler_wal_turns_total{turn="left"}`),
	}
	for _, result := range []string{forwardCommitted, forwardRefused, forwardOverdue} {
		m.forwards[result] = set.GetOrCreateCounter(`celler_wal_forwards_total{result="` + result + `"}`)
	}
	for _, result := range []string{hintNews, hintKnown} {
		m.hints[result] = set.GetOrCreateCounter(`celler_wal_hints_total{result="` + result + `"}`)
	}
	for _, result := range []string{resultCommitted, resultRejected, resultUnknown, resultUnavailable} {
		m.results[result] = set.GetOrCreateCounter(`celler_wal_commits_total{result="` + result + `"}`)
	}
	return m
}

// hedgeCounts are the requests of one kind that were sent twice, by which was answered first.
type hedgeCounts struct{ first, second *metrics.Counter }

func newHedgeCounts(set *metrics.Set, request string) hedgeCounts {
	counter := func(answered string) *metrics.Counter {
		return set.GetOrCreateCounter(`celler_wal_hedges_total{request="` + request + `",answered="` + answered + `"}`)
	}
	return hedgeCounts{counter("first"), counter("second")}
}

const (
	forwardCommitted = "committed"
	forwardRefused   = "refused" // by the peer, and taken back
	forwardOverdue   = "overdue" // taken back, because the peer did not answer or the state did not show it
)

const (
	hintNews  = "news"  // led to a catch-up
	hintKnown = "known" // came too late, or twice
)

const (
	resultCommitted   = "committed"   // in a slot, or nothing to do
	resultRejected    = "rejected"    // by Build or by a limit
	resultUnknown     = "unknown"     // ErrUnknown
	resultUnavailable = "unavailable" // nothing happened, for any other reason
)
