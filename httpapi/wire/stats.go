package wire

import "time"

// Stats is the answer to GET stats, of the whole store and its caches as far as the
// caller may know of them. All numbers are counters kept by the log's own operations: they
// are exact, and cost no scan.
type Stats struct {
	Store  *StoreStats  `json:"store,omitempty"` // only for who may pull from every cache
	Caches []CacheStats `json:"caches"`
}

// CacheStats is the answer to GET stats of one cache.
type CacheStats struct {
	Cache     string `json:"cache"`
	Paths     int64  `json:"paths"`
	NarBytes  int64  `json:"nar_bytes"`  // of the plain NARs, one counted for each path
	FileBytes int64  `json:"file_bytes"` // of the same as they are served

	// What pushes to this cache brought that the store did not have, since the cache was
	// created: plain bytes of chunks, and the bytes of the packs that they came in.
	NewBytes       int64 `json:"new_bytes"`
	NewStoredBytes int64 `json:"new_stored_bytes"`

	// Uncounted: the numbers do not tell all, because some of the paths were pushed before
	// they were kept.
	Uncounted bool `json:"uncounted,omitempty"`

	OldestUse *OldestUse `json:"oldest_use,omitempty"` // absent if there is no path
	Growth    []Growth   `json:"growth,omitempty"`     // the last store days, newest first
}

// OldestUse is the path that was not used for the longest time.
type OldestUse struct {
	StorePath string     `json:"store_path"`
	Until     *time.Time `json:"until,omitempty"` // it was not used after this; absent: it was, on the current store day
}

// Growth is what came and went on one store day.
type Growth struct {
	Day          uint32     `json:"day"`
	Ended        *time.Time `json:"ended,omitempty"` // absent: it is the current one
	AddedPaths   int64      `json:"added_paths"`
	AddedBytes   int64      `json:"added_nar_bytes"`
	RemovedPaths int64      `json:"removed_paths"`
	RemovedBytes int64      `json:"removed_nar_bytes"`
}

// StoreStats counts the whole store.
type StoreStats struct {
	Paths     int64 `json:"paths"`      // of all caches
	NarBytes  int64 `json:"nar_bytes"`  // of their plain NARs, one counted for each path
	FileBytes int64 `json:"file_bytes"` // of the same as they are served

	Nars        int64 `json:"nars"`         // different ones that paths name
	UniqueNars  int64 `json:"nars_bytes"`   // their plain bytes, each once
	Chunks      int64 `json:"chunks"`       // different ones
	UniqueBytes int64 `json:"unique_bytes"` // their plain bytes
	Packs       int64 `json:"packs"`
	Objects     int64 `json:"objects"`      // in the bucket that hold living chunks
	StoredBytes int64 `json:"stored_bytes"` // their length

	SavedByDedup       int64 `json:"saved_by_dedup"`       // nar_bytes less unique_bytes
	SavedByCompression int64 `json:"saved_by_compression"` // unique_bytes less stored_bytes

	Unreferenced int64 `json:"unreferenced_nars"` // kept although no path names them, for their grace
	DeadChunks   int64 `json:"dead_chunks"`       // in packs, and needed by nothing
	DeadBytes    int64 `json:"dead_bytes"`        // their plain bytes
	Buried       int64 `json:"buried_objects"`    // objects that are about to be deleted
	BuriedBytes  int64 `json:"buried_bytes"`

	Growth []Growth `json:"growth,omitempty"` // of all caches together, the last store days, newest first
}
