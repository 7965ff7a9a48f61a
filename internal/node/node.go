package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/telemetry"
	"github.com/celler/celler/wal"
)

// Options are what a node receives besides its configuration. The zero value works.
type Options struct {
	Logger  *slog.Logger       // nil: discard
	Metrics *metrics.Set       // nil: a set of its own
	Tracing *telemetry.Tracing // nil: no traces; the caller closes it after the node
	Version string             // for people: in ROOT and in metrics
	Now     func() time.Time   // nil: time.Now
	// At, if not nil, makes the node show the state of then, and write nothing.
	At *When
}

func (o Options) withDefaults(ctx context.Context) (Options, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = telemetry.NewMetrics()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Tracing == nil {
		var err error
		if o.Tracing, err = telemetry.NewTracing(ctx, "", o.Version); err != nil {
			return o, err
		}
	}
	return o, nil
}

// Node is one running celler.
type Node struct {
	cfg     config.Config
	o       Options
	founded bool
	past    *Moment // the state shown; nil for the present

	scratchOptions index.Options // of states of the past; tests keep them in memory

	logBucket  blob.Bucket
	dataBucket blob.Bucket
	format     wal.Format
	db         *index.DB
	log        *wal.Log
	cat        *catalog.Catalog
	chunks     *chunkstore.Store
	verifier   *auth.Verifier
	listener   net.Listener
	server     *http.Server
	peers      *peers // nil if there is no address to tell them
	delta      deltaKeys

	collector   *gc.Collector
	collectSoon chan struct{} // told that somebody wants something to be gone
	uses        *uses

	closers []closer // in the order of opening
}

// closer undoes one step of Open.
type closer struct {
	what  string
	close func() error
}

// Open assembles a node. When it returns, the index is up to date and the address is
// taken, though nobody answers before Run.
func Open(ctx context.Context, cfg config.Config, o Options) (*Node, error) {
	o, err := o.withDefaults(ctx)
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, o: o}
	steps := []func(context.Context) error{n.preflight, n.openBuckets, n.openFormat, n.openLog, n.openAuth, n.openDelta, n.openStore, n.listen}
	if o.At != nil {
		steps = []func(context.Context) error{n.preflight, n.openPast, n.openAuth, n.openStore, n.listen}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	n.serve()
	return n, nil
}

// Close undoes Open, last step first.
func (n *Node) Close() error {
	var errs []error
	for len(n.closers) > 0 {
		last := n.closers[len(n.closers)-1]
		n.closers = n.closers[:len(n.closers)-1]
		if err := last.close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", last.what, err))
		}
	}
	return errors.Join(errs...)
}

func (n *Node) onClose(what string, fn func() error) {
	n.closers = append(n.closers, closer{what, fn})
}

// Addr is the address listened on.
func (n *Node) Addr() net.Addr { return n.listener.Addr() }

// Founded says that this node is the first of its bucket: it founded the bucket, or
// found one without a log and put the token secret into it.
func (n *Node) Founded() bool { return n.founded }

// HadCache says whether a cache has ever been created in this bucket.
func (n *Node) HadCache() (bool, error) { return n.cat.HadCache() }

// Store is the id of the bucket, as people see it.
func (n *Node) Store() string { return n.format.Store.String() }

// Seq is the last position of the log that the index holds.
func (n *Node) Seq() uint64 { return uint64(n.log.Seq()) }

// AdminToken mints a token that may do everything, for the given time.
func (n *Node) AdminToken(validity time.Duration) (string, error) {
	claims, err := adminRequest(validity).claims(n.o.Now())
	if err != nil {
		return "", err
	}
	return n.verifier.Mint(claims)
}

// CanMint says whether the node's key can sign tokens, or only verify them.
func (n *Node) CanMint() bool { return n.verifier.Key().CanSign() }

// preflight finds what would stop this node further on, before a bucket is founded in
// vain: whoever founds one is shown a token that is not shown again.
func (n *Node) preflight(ctx context.Context) error {
	if n.cfg.Signing.Kind != "" {
		if _, err := parseKey(n.cfg.Signing); err != nil {
			return err
		}
	}
	if n.cfg.LogBucket != "mem:" {
		if err := os.MkdirAll(n.cfg.CacheDir, 0o700); err != nil {
			return &index.DiskError{Dir: n.cfg.CacheDir, Err: err}
		}
	}
	return n.claim(ctx)
}

func (n *Node) openBuckets(ctx context.Context) (err error) {
	b := n.cfg.Buckets
	if n.logBucket, err = n.openBucket(ctx, b.LogBucket, roleName("log", b)); err != nil {
		return err
	}
	if err := probeStart(ctx, n.logBucket, b.LogBucket, n.o.Now, n.o.Logger); err != nil {
		return err
	}
	if b.Same() {
		n.dataBucket = n.logBucket
		return nil
	}
	if n.dataBucket, err = n.openBucket(ctx, b.DataBucket, "data"); err != nil {
		return err
	}
	return probeData(ctx, n.dataBucket, b.DataBucket)
}

// roleName labels the metrics of a bucket.
func roleName(role string, b config.Buckets) string {
	if b.Same() {
		return "all"
	}
	return role
}

func (n *Node) openBucket(ctx context.Context, url, role string) (blob.Bucket, error) {
	if n.cfg.Default {
		// Nobody made the place for the default bucket; one that was named must be there,
		// lest a server that started before its disk was mounted founds a second bucket.
		if err := os.MkdirAll(filepath.Dir(url), 0o755); err != nil {
			return nil, fmt.Errorf("make a place for the bucket: %w", err)
		}
	}
	raw, err := OpenBucket(ctx, url, n.cfg.S3, n.o.Logger)
	if err != nil {
		return nil, err
	}
	n.onClose("bucket "+url, func() error { return closeBucket(raw) })
	return observed(raw, role, n.o.Metrics, n.o.Tracing), nil
}

func (n *Node) openFormat(ctx context.Context) (err error) {
	profile, err := parseProfile("")
	if err != nil {
		return err
	}
	if err := probeFounding(ctx, n.logBucket, n.cfg.LogBucket, n.o.Now); err != nil {
		return err
	}
	n.format, n.founded, err = found(ctx, n.logBucket, n.cfg.LogBucket, profile.Name, "celler "+n.o.Version)
	return err
}

// openLog brings the index up to date with the log. The index lives under the store's
// id, so that a server given another bucket does not wipe the one it had.
func (n *Node) openLog(ctx context.Context) (err error) {
	if n.cfg.LogBucket == "mem:" {
		// The bucket will be gone with the process, so nothing can be kept for the next one.
		if n.cfg.CacheDir, err = os.MkdirTemp("", "celler-"); err != nil {
			return fmt.Errorf("make a directory for the index: %w", err)
		}
		n.onClose("temporary directory", func() error { return os.RemoveAll(n.cfg.CacheDir) })
	}
	dir := filepath.Join(n.cfg.CacheDir, n.format.Store.String(), "index")
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return &index.DiskError{Dir: dir, Err: err}
	}
	n.db, err = index.Open(dir, n.format.Store, index.Options{Now: n.o.Now, Bucket: n.logBucket, CacheBytes: indexCacheBytes, Logger: n.o.Logger, Metrics: n.o.Metrics})
	if err != nil {
		return err
	}
	n.onClose("index", n.db.Close)
	o := wal.Options{
		Logger:       n.o.Logger,
		Metrics:      n.o.Metrics,
		PollInterval: time.Duration(n.cfg.WAL.PollInterval),
		MaxStaleness: time.Duration(n.cfg.WAL.MaxStaleness),
	}
	n.openPeers()
	n.peers.walOptions(&o)
	n.log, err = wal.Open(ctx, n.logBucket, n.db, o)
	if err != nil {
		return damaged(n.cfg.LogBucket, fmt.Errorf("open log in bucket %s: %w", n.cfg.LogBucket, err))
	}
	n.onClose("log", n.log.Close)
	if err := n.checkWhole(ctx); err != nil {
		return err
	}
	n.cat = catalog.New(n.log, n.db, catalog.Options{Now: n.o.Now, Logger: n.o.Logger, Metrics: n.o.Metrics})
	return nil
}

// What the parts of a server may hold in memory. Together with what Writes may
// (chunkstore.Options.WriteBytes), all of it in use at once, a server stays within
// the default of config.Config.Memory or little above.
const (
	indexCacheBytes = 32 << 20
	readBytes       = 64 << 20
)

func (n *Node) openStore(context.Context) error {
	profile, err := parseProfile(n.format.Profile)
	if err != nil {
		return err
	}
	o := chunkstore.Options{Profile: profile, ProofKey: n.delta.proof, ReadBytes: readBytes, Logger: n.o.Logger, Metrics: n.o.Metrics, Now: n.o.Now}
	if n.cfg.ResidentBytes > 0 {
		o.Dir = filepath.Join(n.cfg.CacheDir, n.format.Store.String(), "resident")
		o.ResidentBytes = int64(n.cfg.ResidentBytes)
	}
	n.chunks, err = chunkstore.New(n.dataBucket, n.cat, o)
	if err != nil {
		return fmt.Errorf("open chunk store: %w", err)
	}
	n.onClose("chunk store", n.chunks.Close)
	return nil
}

func (n *Node) openAuth(ctx context.Context) error {
	empty := n.log.Seq() == 0
	if n.past != nil && n.cfg.Signing.Kind == "" {
		if err := n.pastHasKey(ctx); err != nil {
			return err
		}
	}
	key, made, err := tokenKey(ctx, n.cat, n.cfg.Signing)
	if err != nil {
		return err
	}
	n.founded = n.founded || empty && made
	n.verifier = auth.New(key, verifierOptions(n.cfg.JWT))
	return nil
}

// buildInfo names the metric that says which program this is.
func buildInfo(version string) string {
	return fmt.Sprintf("celler_build_info{version=%q}", version)
}

// health is the node's own judgement, for /readyz and for refusing stale answers.
func (n *Node) health(now time.Time) httpapi.Health {
	return httpapi.Health{
		Seq:       uint64(n.log.Seq()),
		Staleness: n.log.Staleness(now),
		Stale:     !n.log.Fresh(now),
		Err:       public(errors.Join(n.log.Err(), n.db.Err())),
	}
}

// public keeps the names of local files out of what anybody may read.
func public(err error) error {
	var disk *index.DiskError
	var damage *index.CorruptError
	if errors.As(err, &disk) || errors.As(err, &damage) {
		return errors.New("the index on the local disk cannot be used; the server's log says why")
	}
	return err
}
