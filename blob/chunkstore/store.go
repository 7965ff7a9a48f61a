package chunkstore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/sync/semaphore"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
)

// Directory is what the store asks of the metadata.
type Directory interface {
	// LookupChunks says for every id where the chunk lies, and whether it is known.
	LookupChunks(ctx context.Context, ids []chunk.ID) ([]chunk.Location, []bool, error)
	// LookupRefs is LookupChunks for chunks of which only who has them can speak: one is
	// known only if its name and its proof are right.
	LookupRefs(ctx context.Context, refs []chunk.Ref) ([]chunk.Location, []bool, error)
	// ProveChunks adds proofs to chunks that are known without one.
	ProveChunks(ctx context.Context, ids []chunk.ID, proofs []chunk.Proof) error
	// PackLayout returns the layout of a known pack, or chunk.ErrNoPack.
	PackLayout(ctx context.Context, id chunk.PackID) (chunk.Layout, error)
	// CommitPacks makes packs and their chunks known; it is durable when it
	// returns nil. Packs that are known already are left as they are.
	CommitPacks(ctx context.Context, packs []chunk.NewPack) error
	// UploadEpoch returns the upload epoch that names of new packs carry.
	UploadEpoch(ctx context.Context) (uint32, error)
}

// Options tune a Store. The zero value works.
type Options struct {
	ProofKey      chunk.ProofKey   // makes the proofs of chunks; zero = there are none
	Profile       chunk.Profile    // how NARs are cut; zero = chunk.DefaultProfile
	FrameBytes    int              // plain bytes of a frame, at most 1 MiB; default 512 KiB
	RestoreBytes  int              // known chunks of fewer plain bytes between new ones are stored again; default 16 KiB, negative = never
	ServedEncoder uint8            // number of the encoder of new recipes, for measurements; default the current one
	PackBytes     int              // compressed bytes at which a pack is full, at most 64 MiB; default 16 MiB
	WriteBytes    int64            // memory of all Writes together; default 64 MiB, up to twice that while slow clients hold it
	ReadBytes     int64            // memory of all readers together; default 96 MiB
	ReadAhead     int64            // compressed bytes that one reader fetches ahead; default 16 MiB
	Dir           string           // directory of the resident copies; empty = none
	ResidentBytes int64            // bytes of all resident copies; default 10 GiB
	HedgeAfter    time.Duration    // shortest wait before a GET is sent again; default 200 ms, negative = never
	Logger        *slog.Logger     // nil = none
	Metrics       *metrics.Set     // nil = a set of its own
	Now           func() time.Time // nil = time.Now
}

func (o Options) withDefaults() (Options, error) {
	if o.Profile == (chunk.Profile{}) {
		var err error
		if o.Profile, err = chunk.ParseProfile(chunk.DefaultProfile); err != nil {
			return o, err
		}
	}
	o.FrameBytes = cmp.Or(o.FrameBytes, defaultFrameBytes)
	o.RestoreBytes = cmp.Or(o.RestoreBytes, defaultRestoreBytes)
	o.ServedEncoder = cmp.Or(o.ServedEncoder, currentEncoder)
	o.PackBytes = cmp.Or(o.PackBytes, defaultPackBytes)
	o.WriteBytes = cmp.Or(o.WriteBytes, 64<<20)
	o.ReadBytes = cmp.Or(o.ReadBytes, 96<<20)
	o.ReadAhead = cmp.Or(o.ReadAhead, 16<<20)
	o.ResidentBytes = cmp.Or(o.ResidentBytes, 10<<30)
	o.HedgeAfter = cmp.Or(o.HedgeAfter, 200*time.Millisecond)
	if o.FrameBytes < 0 || o.FrameBytes > frameWindow {
		return o, fmt.Errorf("frames of %d bytes: want 1 to %d", o.FrameBytes, frameWindow)
	}
	if _, ok := servedEncoders(o.ServedEncoder); !ok {
		return o, fmt.Errorf("served encoder %d does not exist", o.ServedEncoder)
	}
	if o.PackBytes < 1<<10 || o.PackBytes > 64<<20 {
		return o, fmt.Errorf("packs of %d bytes: want 1 KiB to 64 MiB", o.PackBytes)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, nil
}

const (
	defaultFrameBytes   = 512 << 10
	defaultRestoreBytes = 16 << 10
	defaultPackBytes    = 16 << 20

	// maxPackChunks seals a pack that is full of chunks before it is full of
	// bytes: its row in the log must stay below half a MiB.
	maxPackChunks = 8192

	// layoutsKept packs have their layout at hand (some 10 KiB each), footersKept
	// objects the ids of their chunks (some 40 KiB each).
	layoutsKept = 512
	footersKept = 128
	// segmentsKept segments of NARs are remembered, some KiB each, so that what was read
	// for its hash is not read again.
	segmentsKept = 4096
)

// Store stores NARs as chunks in packs and gives them back. Its methods may be
// used by many goroutines.
type Store struct {
	bucket blob.Bucket
	dir    Directory
	o      Options
	codec  *codec
	m      *storeMetrics

	stop context.CancelFunc // ends what the store has started
	ctx  context.Context    //nolint:containedctx // the life of the store, not of a call
	wg   sync.WaitGroup

	packer   *packer
	resident *resident // nil without a directory

	small        *semaphore.Weighted // slots of Writes of up to smallNar bytes
	large, extra *semaphore.Weighted // of other Writes; extra when large ones are held for long
	encodes      *semaphore.Weighted // frames and stretches being compressed for Writes
	rewrites     *semaphore.Weighted // one at a time
	readers      *readBudget
	peers        *peers
	layouts      *lru[chunk.PackID, *packView]
	footers      *lru[chunk.PackID, *footerEntry]
	refused      *lru[string, struct{}]  // etags
	segments     *lru[[32]byte, Segment] // that were taken in, by state and runs
	buffers      bufferPool
}

// New returns a Store on bucket whose metadata is dir. It reads the directory of
// resident copies, but asks neither bucket nor dir.
func New(bucket blob.Bucket, dir Directory, o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make chunk store: %w", err)
	}
	s := &Store{bucket: bucket, dir: dir, o: o, m: newStoreMetrics(o.Metrics)}
	if s.codec, err = newCodec(); err != nil {
		return nil, fmt.Errorf("make chunk store: %w", err)
	}
	if o.Dir != "" {
		if s.resident, err = openResident(o.Dir, o.ResidentBytes, o.Now, s.m); err != nil {
			s.codec.close()
			return nil, fmt.Errorf("make chunk store: %w", err)
		}
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	slots := writeSlots(o)
	s.packer = newPacker(s, slots.packs)
	s.small = semaphore.NewWeighted(slots.small)
	s.large = semaphore.NewWeighted(slots.large)
	s.extra = semaphore.NewWeighted(2 * slots.large)
	s.encodes = semaphore.NewWeighted(maxEncodes())
	s.rewrites = semaphore.NewWeighted(1)
	s.readers = newReadBudget(o.ReadBytes)
	s.peers = newPeers(o.HedgeAfter)
	s.layouts = newLRU[chunk.PackID, *packView](layoutsKept)
	s.footers = newLRU[chunk.PackID, *footerEntry](footersKept)
	s.refused = newLRU[string, struct{}](refusedKept)
	s.segments = newLRU[[32]byte, Segment](segmentsKept)
	return s, nil
}

// Close stops the store and waits for what it has started. All calls and readers
// must have ended; uploads nobody waits for are given up.
func (s *Store) Close() error {
	s.stop()
	s.wg.Wait()
	s.codec.close()
	if s.resident != nil {
		return s.resident.close()
	}
	return nil
}

// slots says how the memory of Writes is divided.
type slots struct {
	packs        int // packs in memory: one gathers, the others are on their way up
	small, large int64
}

// writeSlots gives half of the memory to packs and the rest to Writes in
// progress, a quarter of that to small ones so that they never wait for a large
// one that is stuck behind a slow client.
func writeSlots(o Options) slots {
	packs := min(max(int(o.WriteBytes/2)/o.PackBytes, 2), maxPacksInMemory)
	rest := max(o.WriteBytes-int64(packs*o.PackBytes), 0)
	return slots{
		packs: packs,
		small: max(rest/4/writeSmallBytes(o), 2),
		large: max(rest*3/4/writeLargeBytes(o), 2),
	}
}

// maxPacksInMemory bounds the uploads at a time; more would not be faster.
const maxPacksInMemory = 8

// writeSmallBytes is what a Write keeps in memory at most while it has seen less
// than smallNar bytes: them, their frames' plain bytes and their compressed bytes.
func writeSmallBytes(Options) int64 { return 3 * smallNar }

// writeLargeBytes is the same for any other Write: what is being cut, the open
// frame, the stretch, the chunks that may become a whole frame, and compressed
// bytes that are not in a pack yet. What is being compressed has its own bound.
func writeLargeBytes(o Options) int64 {
	return int64(cutBytes+o.Profile.Max) + int64(3*o.FrameBytes) + 2*groupBytes
}

// encodesAhead bounds the frames and stretches of one Write that were handed to
// the encoders and not yet taken back.
func encodesAhead() int { return min(runtime.GOMAXPROCS(0)+1, 4) }

// maxEncodes bounds those of all Writes: enough that no encoder waits for work.
func maxEncodes() int64 { return int64(2 * runtime.GOMAXPROCS(0)) }

// ETag returns the strong entity tag of the served form of r, quotes included.
// It is a hash of the recipe, all but FileHash, which may become known later.
func ETag(r *chunk.Recipe) string { return `"` + etagOf(r) + `"` }

func etagOf(r *chunk.Recipe) string {
	c := *r
	c.Served.FileHash = [32]byte{}
	sum := sha256.Sum256(chunk.AppendRecipe(nil, &c))
	return hex.EncodeToString(sum[:16])
}

// layout returns the layout of a pack, from memory or from the directory.
func (s *Store) layout(ctx context.Context, id chunk.PackID) (*packView, error) {
	if v, ok := s.layouts.get(id); ok {
		return v, nil
	}
	l, err := s.dir.PackLayout(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("look up layout of %s: %w", pack.Key(id), err)
	}
	if l.ID != id {
		return nil, fmt.Errorf("look up layout of %s: found that of %s", pack.Key(id), pack.Key(l.ID))
	}
	v, err := newPackView(l)
	if err != nil {
		return nil, err
	}
	s.layouts.put(id, v)
	return v, nil
}

var _ io.ReadSeekCloser = (*reader)(nil)
