package client

import (
	"time"

	"github.com/celler/celler/nix"
)

// Events are told how a push goes. Each field may be nil. They are called from several
// goroutines at once, except that calls about one worker do not overlap; none may
// block for long, for the upload waits meanwhile.
type Events struct {
	// Plan is called once, before the first upload.
	Plan func(Plan)
	// Start: a worker, numbered from 0 to Plan.Workers-1, takes up a path of size NAR bytes.
	Start func(worker int, path nix.StorePath, size int64)
	// Sent: a worker has sent n more bytes of it; negative when it starts again.
	Sent func(worker int, n int64)
	// Retry: an attempt failed and is repeated after wait.
	Retry func(worker int, path nix.StorePath, attempt int, wait time.Duration, err error)
	// Done: a path has its outcome. Worker is -1 if none ever took it up.
	Done func(worker int, o Outcome)
	// Pinned: a pin was set, by an upload or after all of them.
	Pinned func(p Pin)
	// Below: closures of paths that the cache has are there as a whole; these are so many
	// paths that were not asked about and have no Done, or more of them.
	Below func(paths int, orMore bool)
	// Note: something that the person at the keyboard should know.
	Note func(text string)
}

func (e *Events) plan(p Plan) {
	if e.Plan != nil {
		e.Plan(p)
	}
}

func (e *Events) start(worker int, path nix.StorePath, size int64) {
	if e.Start != nil {
		e.Start(worker, path, size)
	}
}

func (e *Events) sent(worker int, n int64) {
	if e.Sent != nil && n != 0 {
		e.Sent(worker, n)
	}
}

func (e *Events) retry(worker int, path nix.StorePath, attempt int, wait time.Duration, err error) {
	if e.Retry != nil {
		e.Retry(worker, path, attempt, wait, err)
	}
}

func (e *Events) done(worker int, o Outcome) {
	if e.Done != nil {
		e.Done(worker, o)
	}
}

func (e *Events) pinned(p Pin) {
	if e.Pinned != nil {
		e.Pinned(p)
	}
}

func (e *Events) below(paths int, orMore bool) {
	if e.Below != nil {
		e.Below(paths, orMore)
	}
}

func (e *Events) note(text string) {
	if e.Note != nil {
		e.Note(text)
	}
}

// Plan is what a push is going to do.
type Plan struct {
	Paths   int   // in the closure
	Push    int   // to be uploaded
	Bytes   int64 // their NARs together
	Workers int
}

// Kind says what became of a path.
type Kind string

// The kinds of [Outcome].
const (
	Pushed       Kind = "pushed"
	Deduplicated Kind = "deduplicated" // uploaded, but the server had the whole NAR
	Present      Kind = "present"      // the cache had the path
	Upstream     Kind = "upstream"     // signed by a key of an upstream cache, so not needed here
	Planned      Kind = "planned"      // would be pushed; in a dry run only
	Failed       Kind = "failed"
	Skipped      Kind = "skipped" // not tried, because a reference failed or the push was given up
)

// Outcome is what became of one path.
type Outcome struct {
	Path         nix.StorePath
	Kind         Kind
	NarSize      int64
	FileSize     int64         // as stored, compressed; 0 = the server did not say
	Counted      bool          // the next ones were: the server said which chunks it lacked
	New          int64         // bytes of the NAR that the server lacked; it had the others
	Compressed   int64         // these, compressed; 0 in a dry run
	Sent         int64         // bytes of requests, with all that was sent again or in vain
	Deduplicated float64       // part of the NAR that the server had, 0 to 1; -1 = it did not say
	Attempts     int           // 0 for a path that was not uploaded
	Took         time.Duration // of the upload, waits included
	Key          string        // of the upstream cache, for Upstream
	Err          error         // for Failed and Skipped
	Pin          *Pin          // as the upload set it
}

// Result sums up a push.
type Result struct {
	Pushed, Present, Upstream, Failed, Skipped int
	Closures                                   int   // of Present: as part of closures that are, at least so many
	Planned                                    int   // in a dry run
	Bytes                                      int64 // NAR bytes of the pushed paths
	Counted                                    int   // of the pushed or planned paths, those of which is known:
	New, Deduplicated                          int64 // NAR bytes that the server lacked, and had
	Compressed, Sent                           int64 // what was new, compressed; and what was sent in all
	Took                                       time.Duration
	Logs                                       int // of builds, that were sent
	Pinned, Unpinned                           int // pins that were set, and that could not be
}

func (r *Result) count(o Outcome) {
	if o.Pin != nil {
		r.Pinned++
	}
	r.Sent += o.Sent
	if o.Counted {
		r.Counted++
		r.New += o.New
		r.Deduplicated += o.NarSize - o.New
		r.Compressed += o.Compressed
	}
	switch o.Kind {
	case Pushed, Deduplicated:
		r.Pushed++
		r.Bytes += o.NarSize
	case Present:
		r.Present++
	case Upstream:
		r.Upstream++
	case Failed:
		r.Failed++
	case Skipped:
		r.Skipped++
	case Planned:
		r.Planned++
		r.Bytes += o.NarSize
	}
}

// Incomplete reports whether something that should have been pushed was not.
func (r *Result) Incomplete() bool { return r.Failed+r.Skipped+r.Unpinned > 0 }
