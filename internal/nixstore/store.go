package nixstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nar"
)

// ErrNotValid means that the store does not have the path.
var ErrNotValid = errors.New("path is not valid")

// Options say which store to open. The zero value is the store that nix itself
// would use in an empty environment.
type Options struct {
	// Remote is the value of NIX_REMOTE. "" and "auto": the socket if a daemon
	// listens there, else a daemon of our own. "daemon" and "unix://path": the
	// socket. All others, such as "local" or a directory: a daemon of our own
	// that is given this value.
	Remote string
	// Socket is the value of NIX_DAEMON_SOCKET_PATH; default DefaultSocket.
	Socket string
	// StoreDir is the directory that store paths name; default /nix/store.
	StoreDir nix.StoreDir
	// RealStoreDir is where their files are; default StoreDir, below the root if
	// Remote names one.
	RealStoreDir string
	// LogDir is where logs of builds are; default /nix/var/log/nix, below the root if
	// Remote names one.
	LogDir string
	// DaemonCommand starts a daemon on its standard streams; default nix-daemon
	// --stdio.
	DaemonCommand []string
	// Env is the environment of that daemon; default our own.
	Env []string
}

func (o Options) withDefaults() Options {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	if o.StoreDir == "" {
		o.StoreDir = nix.DefaultStoreDir
	}
	if o.RealStoreDir == "" {
		o.RealStoreDir = o.realStoreDir()
	}
	if o.LogDir == "" {
		o.LogDir = o.root() + "/nix/var/log/nix"
	}
	if len(o.DaemonCommand) == 0 {
		o.DaemonCommand = []string{"nix-daemon", "--stdio"}
	}
	return o
}

// A Store is an open connection to the local Nix store.
type Store struct {
	o Options
	c *conn
}

// Open connects. The context bounds the connecting only.
func Open(ctx context.Context, o Options) (*Store, error) {
	o = o.withDefaults()
	if err := o.StoreDir.Valid(); err != nil {
		return nil, fmt.Errorf("open nix store: %w", err)
	}
	c, err := dial(ctx, o)
	if err != nil {
		return nil, err
	}
	return &Store{o: o, c: c}, nil
}

// Close hangs up, and waits for the daemon if it is our own. Temporary roots end
// with the connection.
func (s *Store) Close() error { return s.c.close() }

// StoreDir is the directory that the store's paths name.
func (s *Store) StoreDir() nix.StoreDir { return s.o.StoreDir }

// PathInfo is what the store knows of a valid path.
type PathInfo struct {
	StorePath        nix.StorePath
	Deriver          string // base name; empty = unknown
	NarHash          nix.Hash
	NarSize          int64           // bytes
	References       []nix.StorePath // sorted; may include StorePath itself
	RegistrationTime time.Time
	Ultimate         bool // built here, not substituted
	Sigs             []nix.Signature
	CA               string // content address; empty = not content-addressed
}

const (
	opIsValidPath           = 1
	opAddTempRoot           = 11
	opQueryPathInfo         = 26
	opQueryPathFromHashPart = 29
	opQueryValidPaths       = 31
)

// PathInfo asks about one path; ErrNotValid if the store does not have it.
func (s *Store) PathInfo(ctx context.Context, p nix.StorePath) (PathInfo, error) {
	infos, err := s.PathInfos(ctx, []nix.StorePath{p})
	if err != nil {
		return PathInfo{}, err
	}
	return infos[0], nil
}

// PathInfos asks about many paths at once and answers in their order. It fails
// with ErrNotValid, naming the path, if the store does not have one of them.
func (s *Store) PathInfos(ctx context.Context, paths []nix.StorePath) ([]PathInfo, error) {
	infos := make([]PathInfo, len(paths))
	err := s.c.pipeline(ctx, len(paths), func(i int, dst []byte) []byte {
		return appendPathOp(dst, opQueryPathInfo, paths[i])
	}, func(i int, d *decoder) error {
		if !d.bool("whether the path is valid") {
			if d.err != nil {
				return d.err
			}
			return fmt.Errorf("%v: %w", paths[i], ErrNotValid)
		}
		infos[i] = s.decodePathInfo(d, paths[i])
		return d.err
	})
	if err != nil {
		return nil, fmt.Errorf("query path info: %w", err)
	}
	return infos, nil
}

// decodePathInfo reads what follows "valid". All versions spoken here send the
// same fields.
func (s *Store) decodePathInfo(d *decoder, p nix.StorePath) PathInfo {
	info := PathInfo{StorePath: p}
	if deriver := d.string("a deriver", maxPathString); deriver != "" {
		info.Deriver = s.decodePath(d, "deriver", deriver).Base()
	}
	if text := d.string("a NAR hash", 1<<10); d.err == nil {
		h, err := nix.ParseHashAs(nix.SHA256, text) // bare hex
		if err != nil {
			d.badf("the NAR hash of "+p.String(), "%v", err)
		}
		info.NarHash = h
	}
	if n := d.count("references"); n > 0 {
		info.References = make([]nix.StorePath, 0, min(n, preallocate))
		for range n {
			ref := s.decodePath(d, "reference", d.string("a reference", maxPathString))
			if d.err != nil {
				return PathInfo{}
			}
			info.References = append(info.References, ref)
		}
		sortPaths(info.References) // they are a set; Nix sends them sorted, others need not
		info.References = slices.Compact(info.References)
	}
	if sec := d.int64("a registration time"); sec != 0 {
		info.RegistrationTime = time.Unix(sec, 0).UTC()
	}
	info.NarSize = d.int64("a NAR size")
	info.Ultimate = d.bool("whether the path was built here")
	for _, text := range d.strings("signatures", 32<<10) {
		// What is no signature to us does not keep the path from being pushed.
		if sig, err := nix.ParseSignature(text); err == nil {
			info.Sigs = append(info.Sigs, sig)
		}
	}
	info.CA = d.string("a content address", 1<<10)
	return info
}

// decodePath checks a path that the daemon names: it must be in the same store.
func (s *Store) decodePath(d *decoder, what, text string) nix.StorePath {
	if d.err != nil {
		return nix.StorePath{}
	}
	p, err := nix.ParseStorePath(text)
	if err != nil {
		d.badf("a "+what, "%v", err)
		return nix.StorePath{}
	}
	if p.Dir() != s.o.StoreDir {
		d.badf(fmt.Sprintf("a %s in %s", what, s.o.StoreDir), "%v", p)
		return nix.StorePath{}
	}
	return p
}

func appendPathOp(dst []byte, op uint64, p nix.StorePath) []byte {
	dst = appendUint64(dst, op)
	return appendString(dst, p.String())
}

// Valid reports whether the store has the path.
func (s *Store) Valid(ctx context.Context, p nix.StorePath) (bool, error) {
	var valid bool
	err := s.c.pipeline(ctx, 1, func(_ int, dst []byte) []byte {
		return appendPathOp(dst, opIsValidPath, p)
	}, func(_ int, d *decoder) error {
		valid = d.bool("whether the path is valid")
		return d.err
	})
	if err != nil {
		return false, fmt.Errorf("query validity of %v: %w", p, err)
	}
	return valid, nil
}

// validBatch is how many paths are asked about in one QueryValidPaths. The
// daemon answers when it has read them all, so a request may be longer than
// maxUnread.
const validBatch = 4096

// ValidPaths returns those of the paths that the store has, sorted.
func (s *Store) ValidPaths(ctx context.Context, paths []nix.StorePath) ([]nix.StorePath, error) {
	var valid []nix.StorePath
	batches := (len(paths) + validBatch - 1) / validBatch
	err := s.c.pipeline(ctx, batches, func(i int, dst []byte) []byte {
		batch := paths[i*validBatch : min(len(paths), (i+1)*validBatch)]
		dst = appendUint64(dst, opQueryValidPaths)
		dst = appendUint64(dst, uint64(len(batch)))
		for _, p := range batch {
			dst = appendString(dst, p.String())
		}
		if s.c.minor >= 27 {
			dst = appendUint64(dst, 0) // do not substitute
		}
		return dst
	}, func(_ int, d *decoder) error {
		for range d.count("valid paths") {
			p := s.decodePath(d, "valid path", d.string("a valid path", maxPathString))
			if d.err != nil {
				return d.err
			}
			valid = append(valid, p)
		}
		return d.err
	})
	if err != nil {
		return nil, fmt.Errorf("query valid paths: %w", err)
	}
	sortPaths(valid)
	return valid, nil
}

// PathFromHashPart finds the path with a hash part; ErrNotValid if there is none.
func (s *Store) PathFromHashPart(ctx context.Context, h nix.HashPart) (nix.StorePath, error) {
	var p nix.StorePath
	err := s.c.pipeline(ctx, 1, func(_ int, dst []byte) []byte {
		return appendString(appendUint64(dst, opQueryPathFromHashPart), h.String())
	}, func(_ int, d *decoder) error {
		text := d.string("a store path", maxPathString)
		if text == "" {
			return ErrNotValid
		}
		p = s.decodePath(d, "store path", text)
		return d.err
	})
	if err != nil {
		return nix.StorePath{}, fmt.Errorf("query path from hash part %v: %w", h, err)
	}
	return p, nil
}

// AddTempRoot keeps the paths from being collected as garbage until the Store is
// closed. A path that is not valid yet is protected too.
func (s *Store) AddTempRoot(ctx context.Context, paths ...nix.StorePath) error {
	err := s.c.pipeline(ctx, len(paths), func(i int, dst []byte) []byte {
		return appendPathOp(dst, opAddTempRoot, paths[i])
	}, func(_ int, d *decoder) error {
		d.uint64() // always 1
		return d.err
	})
	if err != nil {
		return fmt.Errorf("add temporary roots: %w", err)
	}
	return nil
}

// Dump writes the NAR of a path, read from the store directory. That the path is
// valid, and that the NAR has the hash the store knows, is for the caller to
// compare: a damaged store is found only that way.
func (s *Store) Dump(ctx context.Context, w io.Writer, p nix.StorePath) error {
	if err := nar.Dump(ctx, w, s.RealPath(p)); err != nil {
		return fmt.Errorf("dump %v: %w", p, err)
	}
	return nil
}

// RealPath is where the files of a store path are.
func (s *Store) RealPath(p nix.StorePath) string { return s.o.RealStoreDir + "/" + p.Base() }
