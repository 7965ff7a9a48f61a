package gc

import (
	"encoding/json"
	"time"

	"github.com/celler/celler/internal/catalog"
)

// Report says what a round did, or would do if it was a dry run.
type Report struct {
	DryRun bool      `json:"dry_run,omitempty"`
	By     string    `json:"by,omitempty"`
	Began  time.Time `json:"began"` // by the bucket's clock
	Day    uint32    `json:"day"`   // of the store

	// First: no round was before this one, or before what a dry run rehearses. All ages are
	// counted from it on, so that nothing is old yet. FirstDue is when the first path can be
	// too old for its cache; zero: never, as retention is now, or nobody knows yet.
	First    bool `json:"first,omitempty"`
	FirstDue Due  `json:"first_due,omitzero"`

	// Removed are paths that nothing keeps any more.
	Removed   int   `json:"removed_paths"`
	NarBytes  int64 `json:"nar_bytes"`            // of them, plain, each for itself
	Freed     int64 `json:"freed_bytes"`          // stored bytes that nothing else needs; of a dry run only
	FreedFrom Due   `json:"freed_from,omitzero"`  // when the first of them can leave the bucket
	OverQuota *Over `json:"over_quota,omitempty"` // the quota cannot be kept

	Recipes   int   `json:"removed_nars"`
	Parts     int   `json:"removed_parts,omitempty"`   // of recipes that were never finished
	Uploads   int   `json:"removed_uploads,omitempty"` // URLs of plain Nix whose NAR is gone
	Sides     int   `json:"removed_side_objects,omitempty"`
	Condemned int   `json:"condemned_chunks"`
	Dead      int64 `json:"condemned_bytes"` // stored, of these chunks

	Rewritten    int   `json:"rewritten_packs"`
	ReadBytes    int64 `json:"read_bytes"`
	WrittenBytes int64 `json:"written_bytes"`
	Unreadable   int   `json:"unreadable_packs,omitempty"` // could not be rewritten

	Deleted      int   `json:"deleted_objects"` // orphans included
	DeletedBytes int64 `json:"deleted_bytes"`
	Orphans      int   `json:"orphans"` // objects that were uploaded and never committed
	OrphanBytes  int64 `json:"orphan_bytes"`
	// Undeleted counts objects that the bucket refused to delete, Refusal says why.
	// The next rounds try again.
	Undeleted int    `json:"undeleted,omitempty"`
	Refusal   string `json:"refusal,omitempty"`

	Sessions int `json:"sessions,omitempty"` // dropped
	Strays   int `json:"strays,omitempty"`   // runs of recipes that lie nowhere: see celler fsck
	// Unreadable recipes: nothing was condemned, because nobody knows what they name.
	BadRecipes int `json:"bad_recipes,omitempty"`

	Skipped bool          `json:"skipped,omitempty"` // another round ended not long ago, and nothing is due
	Waiting Waiting       `json:"waiting"`
	Next    time.Duration `json:"next,omitempty"`  // until something is due; 0: nobody knows
	Swept   uint32        `json:"swept,omitempty"` // upload epoch in which the bucket was last listed for orphans
	// Unfinished are parts of recipes without their head, for the next round to know.
	Unfinished []string `json:"unfinished,omitempty"`

	Commits  int              `json:"commits"`
	Retries  int              `json:"retries,omitempty"` // because of what was pushed meanwhile
	Requests map[string]int64 `json:"requests,omitempty"`
	Seconds  float64          `json:"seconds"` // by the local clock
}

// lastReport reads what an earlier round kept; what cannot be read is nothing.
func lastReport(last catalog.Round) (r Report) {
	if json.Unmarshal(last.Summary, &r) != nil {
		return Report{}
	}
	return r
}

func sweptIn(last catalog.Round) uint32 { r := lastReport(last); return r.Swept }

// Idle reports whether there was nothing to do.
func (r *Report) Idle() bool {
	return r.Removed+r.Recipes+r.Parts+r.Uploads+r.Sides+r.Condemned+r.Rewritten+r.Deleted+r.Undeleted+r.Sessions == 0
}

// Due is a time by the bucket's clock; the zero value: not known yet.
type Due = time.Time

// Waiting is what will be removed when its time has come.
type Waiting struct {
	Nars        int   `json:"nars"`                // of removed paths, that can still be fetched
	NarBytes    int64 `json:"nar_bytes,omitempty"` // of them, plain; a round with Mode.Every does not weigh them
	NextNar     Due   `json:"next_nar,omitzero"`
	Objects     int   `json:"objects"` // that nothing needs but readers
	ObjectBytes int64 `json:"object_bytes"`
	NextObject  Due   `json:"next_object,omitzero"`
	DeadBytes   int64 `json:"dead_bytes"` // plain bytes of dead chunks that are still stored; in a status only
}

// Next returns when something is due first, or false.
func (w *Waiting) Next() (Due, bool) {
	at := w.NextNar
	if at.IsZero() || !w.NextObject.IsZero() && w.NextObject.Before(at) {
		at = w.NextObject
	}
	return at, !at.IsZero()
}

// Gone is a path that a round removes, or would remove.
type Gone struct {
	Cache     string    `json:"cache"`
	StorePath string    `json:"store_path"`
	Why       Why       `json:"why"`
	LastUse   time.Time `json:"last_use,omitzero"` // by the bucket's clock; it was not used since
	Idle      string    `json:"idle,omitempty"`    // for people: how long ago that is
	Limit     string    `json:"limit,omitempty"`   // what it exceeds: a retention or a quota
	NarBytes  int64     `json:"nar_bytes"`
	// Freed are the stored bytes that nothing needs once this path and those named
	// before it are gone.
	Freed int64 `json:"freed_bytes"`
}

// Why is a reason for removing a path.
type Why string

// The reasons.
const (
	Unused    Why = "unused"     // for longer than its cache's retention, and nothing live refers to it
	OverQuota Why = "over quota" // and used less recently than what stays
	Asked     Why = "asked"      // somebody said so
)

// Over says that the quota cannot be kept, and what holds the bytes.
type Over struct {
	Quota  int64     `json:"quota"`
	Pinned int64     `json:"pinned_bytes"` // stored, of all pinned closures together
	Pins   []PinHold `json:"pins"`         // the largest first
}

// PinHold is what the closure of one pin takes for itself.
type PinHold struct {
	Cache catalog.CacheName `json:"cache"`
	Pin   string            `json:"pin"`
	Bytes int64             `json:"bytes"`
}
