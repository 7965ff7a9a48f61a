package catalog

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

var errUnimplemented = errors.New("not implemented yet")

// The nouns of this package's signatures, so that callers need not import the
// packages below.
type (
	Seq       = wal.Seq
	CacheName = keyspace.CacheName
	Cache     = keyspace.Cache
	Path      = keyspace.Path
)

// ParseCacheName accepts the name of a cache.
func ParseCacheName(s string) (CacheName, error) { return keyspace.ParseCacheName(s) }

// Options tune a Catalog. The zero value is right for a server.
type Options struct {
	Now     func() time.Time // nil: time.Now
	Rand    io.Reader        // key pairs; nil: crypto/rand
	Logger  *slog.Logger     // nil: discard
	Metrics *metrics.Set     // nil: a private set
}

// Catalog is safe for use by many goroutines.
type Catalog struct{}

// New returns a Catalog that commits to log and reads from db, which is the log's state.
func New(log *wal.Log, db *index.DB, o Options) *Catalog { return &Catalog{} }

// Publication is what makes a path appear in a cache.
type Publication struct {
	Path   Path // Sig, SigKey, FileSize and Created are filled in
	Recipe chunk.Recipe
	Packs  []chunk.NewPack
}

func (c *Catalog) Cache(ctx context.Context, name CacheName) (Cache, error) {
	return Cache{}, errUnimplemented
}
func (c *Catalog) Caches(ctx context.Context) ([]Cache, error) { return nil, errUnimplemented }
func (c *Catalog) CreateCache(ctx context.Context, cache Cache) (Seq, error) {
	return 0, errUnimplemented
}
func (c *Catalog) ConfigureCache(ctx context.Context, name CacheName, change func(*Cache) error) (Seq, error) {
	return 0, errUnimplemented
}
func (c *Catalog) DestroyCache(ctx context.Context, name CacheName) (Seq, error) {
	return 0, errUnimplemented
}

// Sweep removes what destroyed caches left behind.
func (c *Catalog) Sweep(ctx context.Context) error { return errUnimplemented }

func (c *Catalog) Path(ctx context.Context, cache CacheName, hashPart nix.HashPart) (Path, error) {
	return Path{}, errUnimplemented
}
func (c *Catalog) Paths(ctx context.Context, cache CacheName, after *nix.HashPart, limit int) ([]Path, error) {
	return nil, errUnimplemented
}
func (c *Catalog) MissingPaths(ctx context.Context, cache CacheName, hashParts []nix.HashPart) ([]nix.HashPart, error) {
	return nil, errUnimplemented
}
func (c *Catalog) Publish(ctx context.Context, p Publication) (Seq, error) {
	return 0, errUnimplemented
}
func (c *Catalog) Withdraw(ctx context.Context, cache CacheName, hashPart nix.HashPart) (Seq, error) {
	return 0, errUnimplemented
}
func (c *Catalog) Recipe(ctx context.Context, narHash [32]byte) (chunk.Recipe, error) {
	return chunk.Recipe{}, errUnimplemented
}
func (c *Catalog) Secret(ctx context.Context, name string, mk func() ([]byte, error)) (secret []byte, created bool, err error) {
	return nil, false, errUnimplemented
}
func (c *Catalog) Seq() Seq                                { return 0 }
func (c *Catalog) Wait(ctx context.Context, seq Seq) error { return errUnimplemented }

func (c *Catalog) LookupChunks(ctx context.Context, ids []chunk.ID) ([]chunk.Location, []bool, error) {
	return nil, nil, errUnimplemented
}
func (c *Catalog) PackLayout(ctx context.Context, id chunk.PackID) (chunk.Layout, error) {
	return chunk.Layout{}, errUnimplemented
}
func (c *Catalog) CommitPacks(ctx context.Context, packs []chunk.NewPack) error {
	return errUnimplemented
}
func (c *Catalog) UploadEpoch(ctx context.Context) (uint32, error) { return 0, errUnimplemented }
