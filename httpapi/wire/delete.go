package wire

import "time"

// DeleteRequest is the body of POST delete-paths.
type DeleteRequest struct {
	Paths   []string `json:"paths"` // hash parts
	Closure bool     `json:"closure,omitempty"`
	DryRun  bool     `json:"dry_run,omitempty"`
	Now     bool     `json:"now,omitempty"`
}

// DecodeDeleteRequest reads a [DeleteRequest].
func DecodeDeleteRequest(body []byte) (DeleteRequest, error) {
	f, err := parseFields(body)
	if err != nil {
		return DeleteRequest{}, err
	}
	var r DeleteRequest
	var closure, dryRun, now *bool
	for _, err := range []error{
		required(f, "paths", &r.Paths),
		optional(f, "closure", &closure),
		optional(f, "dry_run", &dryRun),
		optional(f, "now", &now),
	} {
		if err != nil {
			return DeleteRequest{}, err
		}
	}
	r.Closure, r.DryRun, r.Now = deref(closure), deref(dryRun), deref(now)
	return r, nil
}

// DeleteReport is the answer: what went, or would go in a dry run.
type DeleteReport struct {
	DryRun bool          `json:"dry_run,omitempty"`
	Paths  []DeletedPath `json:"paths"`

	// FreedBytes are stored bytes that nothing else in the store needs. Absent: they
	// were not counted, because that would take long; a dry run counts them.
	FreedBytes *int64 `json:"freed_bytes,omitempty"`
	Former     int    `json:"former_nars,omitempty"` // that the paths named before, and that go as well
	// ClosureUnknown are hash parts of paths that were deleted before, if closures were to go
	// now: what they referred to is not known any more. Waiting are those of other paths of
	// the cache that were deleted at about the same time and whose NARs wait for their
	// grace: what else is to go now has to be named.
	ClosureUnknown []string `json:"closure_unknown,omitempty"`
	Waiting        []string `json:"waiting,omitempty"`
	// GoneBy is when the bytes will have left the bucket, if somebody collects garbage
	// as it is set up and the bucket allows deletion. Absent: this server cannot tell.
	GoneBy *time.Time `json:"gone_by,omitempty"`

	Referrers []string `json:"referrers,omitempty"` // paths that stay and refer to one that went
	Elsewhere []string `json:"elsewhere,omitempty"` // other caches with a path of the same NAR, as far as the caller may know of them
	Hidden    int      `json:"hidden_elsewhere,omitempty"`
}

// DeletedPath is one path of a [DeleteReport].
type DeletedPath struct {
	StorePath  string `json:"store_path"`
	NarBytes   int64  `json:"nar_bytes"`
	FreedBytes *int64 `json:"freed_bytes,omitempty"` // once this path and those before it are gone
}
