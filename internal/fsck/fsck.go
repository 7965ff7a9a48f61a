package fsck

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/internal/catalog"
)

// Options tune a Checker. The zero value works.
type Options struct {
	Logger  *slog.Logger // nil: discard
	Metrics *metrics.Set // nil: a private set

	// Log is the bucket of the log, whose tables are looked for with Mode.Objects; nil:
	// they are not.
	Log blob.Bucket
	// Clock, if set, tells the bucket's time without a commit, for people. nil: the end of
	// the last store day is taken for now.
	Clock func(ctx context.Context) (time.Time, error)
	// Progress, if set, is called now and then with how far a check has come.
	Progress func(Progress)
	// Requests, if set, says how many requests the buckets got so far; what a check adds
	// to that stands in its report.
	Requests func() map[string]int64
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Requests == nil {
		o.Requests = func() map[string]int64 { return nil }
	}
	return o
}

// Progress says how far a check has come.
type Progress struct {
	Phase string `json:"phase"`           // recipes, objects, …
	Done  int64  `json:"done"`            // of the phase's own unit
	Total int64  `json:"total,omitempty"` // 0: not known
}

// Checker checks a store.
type Checker struct {
	cat    *catalog.Catalog
	chunks *chunkstore.Store
	o      Options
	m      *metricSet
}

// New returns a Checker of a store.
func New(cat *catalog.Catalog, chunks *chunkstore.Store, o Options) *Checker {
	o = o.withDefaults()
	return &Checker{cat: cat, chunks: chunks, o: o, m: newMetricSet(o.Metrics)}
}

// Mode says what a check is to look at, and what it may do.
type Mode struct {
	Objects bool // look whether objects are there
	Read    Read // read them; implies Objects
	Repair  bool // put right what can be, and withdraw what cannot

	// Each, if set, is told what is found, as it is found. Its error ends the check.
	Each func(Finding) error
}

// Read says how many bytes a check reads. The zero value is none.
type Read struct {
	All     bool
	Percent float64 // of all stored bytes
	Bytes   int64
	// Older passes over objects that were read within this time; 0: over none.
	Older time.Duration
}

func (r *Read) any() bool { return r.All || r.Percent > 0 || r.Bytes > 0 }

// Kind says what a Finding is about.
type Kind string

// The kinds of findings.
const (
	BadRow    Kind = "row"    // a row of the index that cannot be read, or belongs to nothing
	BadCount  Kind = "count"  // a count that is not what is counted
	BadPack   Kind = "pack"   // the row of a pack contradicts others
	BadChunk  Kind = "chunk"  // the row of a chunk leads to another chunk
	BadRecipe Kind = "recipe" // a NAR that cannot be put together
	BadPath   Kind = "path"   // a path whose NAR cannot be, or is another
	Missing   Kind = "object" // an object is not there, or has another length
	Damaged   Kind = "bytes"  // chunks read as something else
	BadFooter Kind = "footer" // an object does not say of itself what it holds
	BadTable  Kind = "table"  // a part of a snapshot is not there, or is damaged
	Unread    Kind = "unread" // something could not be looked at; nothing is known about it
	Withdrawn Kind = "withdrawn"
)

// Finding is one thing that is wrong. Withdrawn is what was done about a BadPath: it has
// to be pushed again.
type Finding struct {
	Kind      Kind   `json:"kind"`
	What      string `json:"what"` // for people: which row, object, …
	Problem   string `json:"problem"`
	Cache     string `json:"cache,omitempty"`      // of a path
	StorePath string `json:"store_path,omitempty"` // likewise
	NarHash   string `json:"nar_hash,omitempty"`   // of a path or recipe
	Chunks    int64  `json:"chunks,omitempty"`     // that are lost
	Bookmark  string `json:"bookmark,omitempty"`   // whose state cannot be had
}

// Report is what a check has looked at and found.
type Report struct {
	Seq     uint64 `json:"seq"` // the state was that after this slot
	Rows    int64  `json:"rows"`
	Caches  int    `json:"caches"`
	Paths   int64  `json:"paths"`
	Recipes int64  `json:"recipes"`
	Packs   int64  `json:"packs"`
	Chunks  int64  `json:"chunks"`

	Objects     int64 `json:"objects,omitempty"` // that must be there
	ObjectBytes int64 `json:"object_bytes,omitempty"`
	Tables      int   `json:"tables,omitempty"`
	TableBytes  int64 `json:"table_bytes,omitempty"`

	Read       int64 `json:"read_objects,omitempty"`
	ReadBytes  int64 `json:"read_bytes,omitempty"`
	ReadChunks int64 `json:"read_chunks,omitempty"`
	ReadTables int   `json:"read_tables,omitempty"`
	// NotNoted says why it could not be noted what was read.
	NotNoted string `json:"not_noted,omitempty"`

	// Found counts findings, those of the kind Withdrawn among them.
	Found map[Kind]int64 `json:"found,omitempty"`

	// What is harmless: references that a cache does not have, rows of chunks that lead
	// nowhere, parts of recipes of pushes that broke off, and objects that nobody knows.
	References  int64 `json:"absent_references,omitempty"`
	Strays      int64 `json:"stray_chunk_rows,omitempty"`
	Parts       int64 `json:"recipe_parts,omitempty"`
	Orphans     int64 `json:"unknown_objects,omitempty"`
	OrphanBytes int64 `json:"unknown_object_bytes,omitempty"`

	Repair   *Repair          `json:"repair,omitempty"`
	Requests map[string]int64 `json:"requests,omitempty"`
}

// Repair is what was done about findings.
type Repair struct {
	Chunks    int64 `json:"chunks"`     // condemned because they are lost
	Paths     int64 `json:"paths"`      // withdrawn
	Recipes   int64 `json:"recipes"`    // removed
	ChunkRows int64 `json:"chunk_rows"` // removed
	Counts    int64 `json:"counts"`     // put right
	Rewritten int64 `json:"rewritten"`  // packs written again for their footers
	// Left is how much of what was found is still wrong.
	Left int64 `json:"left"`
}

// Sound says that nothing is wrong, and that all that was to be looked at was.
func (r *Report) Sound() bool {
	n := int64(0)
	for kind, count := range r.Found {
		if kind != Withdrawn {
			n += count
		}
	}
	return n == 0
}

// check is one Check.
type check struct {
	*Checker
	mode Mode
	rep  Report

	places  *places
	objects []object
	lost    lostChunks
	wrong   []catalog.Chunk   // rows of chunks of which two name one place
	refoot  map[objectID]bool // objects of which what is left is to be written again
	damaged []object          // objects that were noted as that
	unread  int               // in a row
}

// Check looks at a store. An error ends it; the report is right as far as it goes.
func (c *Checker) Check(ctx context.Context, mode Mode) (Report, error) {
	k := &check{Checker: c, mode: mode, lost: lostChunks{}, refoot: map[objectID]bool{}}
	k.rep.Found = map[Kind]int64{}
	before := c.o.Requests()
	err := k.run(ctx)
	for op, n := range c.o.Requests() {
		if n -= before[op]; n > 0 {
			if k.rep.Requests == nil {
				k.rep.Requests = map[string]int64{}
			}
			k.rep.Requests[op] = n
		}
	}
	return k.rep, err
}

func (k *check) run(ctx context.Context) error {
	if err := k.index(ctx); err != nil {
		return err
	}
	if k.mode.Objects || k.mode.Read.any() {
		if err := k.findObjects(ctx); err != nil {
			return err
		}
		if err := k.findTables(ctx); err != nil {
			return err
		}
	}
	if k.mode.Read.any() {
		if err := k.read(ctx); err != nil {
			return err
		}
	}
	if k.mode.Repair {
		return k.repair(ctx)
	}
	return nil
}

// found notes and tells a finding.
func (k *check) found(f Finding) error {
	k.rep.Found[f.Kind]++
	if k.mode.Each == nil {
		return nil
	}
	return k.mode.Each(f)
}

// look returns the newest state.
func (c *Checker) look(ctx context.Context) (*catalog.Snapshot, error) {
	if _, err := c.cat.CatchUp(ctx); err != nil {
		return nil, err
	}
	return c.cat.Snapshot(ctx)
}

func joinClose(err error, s *catalog.Snapshot) error { return errors.Join(err, s.Close()) }
