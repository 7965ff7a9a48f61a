package chunkstore

import "github.com/VictoriaMetrics/metrics"

// storeMetrics are the counters of a Store.
type storeMetrics struct {
	plain, fresh, stored    *metrics.Counter // bytes
	packs, commits          *metrics.Counter
	gets, getBytes          *metrics.Counter
	retries, hedges         *metrics.Counter
	moves                   *metrics.Counter
	overcommits             *metrics.Counter
	encoded, passed         *metrics.Counter // bytes
	residentHits, residents *metrics.Counter
	residentDrops           *metrics.Counter
	rewritten               *metrics.Counter // objects
	rewrittenPacks          *metrics.Counter
	deleted, denied         *metrics.Counter // objects
}

func newStoreMetrics(set *metrics.Set) *storeMetrics {
	return &storeMetrics{
		plain:          set.GetOrCreateCounter("celler_chunkstore_written_bytes_total"),
		fresh:          set.GetOrCreateCounter("celler_chunkstore_new_bytes_total"),
		stored:         set.GetOrCreateCounter("celler_chunkstore_stored_bytes_total"),
		packs:          set.GetOrCreateCounter("celler_chunkstore_packs_total"),
		commits:        set.GetOrCreateCounter("celler_chunkstore_packs_committed_total"),
		gets:           set.GetOrCreateCounter("celler_chunkstore_fetches_total"),
		getBytes:       set.GetOrCreateCounter("celler_chunkstore_fetched_bytes_total"),
		retries:        set.GetOrCreateCounter("celler_chunkstore_fetch_retries_total"),
		hedges:         set.GetOrCreateCounter("celler_chunkstore_fetch_hedges_total"),
		moves:          set.GetOrCreateCounter("celler_chunkstore_read_moves_total"),
		overcommits:    set.GetOrCreateCounter("celler_chunkstore_read_overcommits_total"),
		encoded:        set.GetOrCreateCounter("celler_chunkstore_encoded_bytes_total"),
		passed:         set.GetOrCreateCounter("celler_chunkstore_passed_bytes_total"),
		residentHits:   set.GetOrCreateCounter("celler_chunkstore_resident_hits_total"),
		residents:      set.GetOrCreateCounter("celler_chunkstore_resident_admitted_total"),
		rewritten:      set.GetOrCreateCounter("celler_chunkstore_rewritten_objects_total"),
		rewrittenPacks: set.GetOrCreateCounter("celler_chunkstore_rewritten_packs_total"),
		deleted:        set.GetOrCreateCounter("celler_chunkstore_deleted_objects_total"),
		denied:         set.GetOrCreateCounter("celler_chunkstore_undeleted_objects_total"),
		residentDrops:  set.GetOrCreateCounter("celler_chunkstore_resident_evicted_total"),
	}
}
