package repolint

// Module is the module path all tables are relative to.
const Module = "github.com/celler/celler"

// Charters returns, for each package by its folder, the sentence its package
// comment must begin with. A new package gets its sentence here first: if the
// sentence needs an "and" for two different things, it is two packages.
func Charters() map[string]string {
	return map[string]string{
		"nix":                   "Package nix parses, validates and prints the texts of the Nix binary-cache protocol: store paths, hashes, narinfo, signatures, nix-cache-info.",
		"nix/nar":               "Package nar reads, writes, verifies and lists Nix archives as streams, refusing everything Nix would refuse.",
		"nix/nixtest":           "Package nixtest makes store paths, NARs and signed narinfos for tests, and calls a real nix if there is one.",
		"blob":                  "Package blob defines Bucket: the few object-store operations celler relies on (get, create, swap, list, delete), with the consistency it demands of them.",
		"blob/s3blob":           "Package s3blob implements blob.Bucket on the S3 API.",
		"blob/fileblob":         "Package fileblob implements blob.Bucket on a local directory.",
		"blob/memblob":          "Package memblob implements blob.Bucket in memory.",
		"blob/blobtest":         "Package blobtest is the conformance suite, fault injector and delayed-listing simulator for blob.Bucket.",
		"blob/chunk":            "Package chunk names chunks and recipes and finds content-defined cut points; each cut profile is a frozen pure function.",
		"blob/chunkstore":       "Package chunkstore stores each chunk once under its hash and streams recipes back into NARs.",
		"blob/pack":             "Package pack is the container format that holds many chunks in one immutable object.",
		"wal":                   "Package wal is the only source of truth: a totally ordered log of key-value effects, one immutable object per slot, plus ROOT, the one object that changes.",
		"wal/waltest":           "Package waltest drives logs through faults and contention and checks the history.",
		"index":                 "Package index is a disposable Pebble copy of the log's state: bootstrapped from a snapshot, advanced by apply, never written otherwise.",
		"index/keyspace":        "Package keyspace is the state's schema: one file per row type, with its key, its value, and how both are validated.",
		"compact":               "Package compact folds segments into snapshot tables, installs them in ROOT, and truncates the log below the floor.",
		"httpapi":               "Package httpapi speaks the Nix cache protocol and the Attic-compatible API over catalog and chunk; it holds no state.",
		"httpapi/wire":          "Package wire holds the request and response bodies shared by httpapi and client.",
		"client":                "Package client pushes, pulls and administers over the HTTP API.",
		"gc":                    "Package gc decides which paths and chunks are dead under pins and retention, explains why, and removes them in that order.",
		"cmd/celler":            "Command celler",
		"internal/catalog":      "Package catalog gives the log meaning: it turns operations on caches, paths and pins into effects, commits them, and answers reads from the index.",
		"internal/bench":        "Command bench measures celler as its users meet it, each figure beside what bounds it on the same machine in the same run.",
		"internal/benchstorage": "Command benchstorage measures how NARs of three generations lie in the bucket and what serving them costs.",
		"internal/auth":         "Package auth turns a request's credentials (Attic JWT, OIDC, none) into a Grant, and a Grant into yes or no.",
		"internal/recovery":     "Package recovery rebuilds ROOT, FORMAT and the state of a bucket from what the bucket still holds, after it has said what is lost.",
		"internal/compression":  "Package compression decodes what Nix compresses NARs and texts with, within bounds, and writes the same formats without effort.",
		"internal/fsck":         "Package fsck proves that everything the index promises can be read from the bucket, and repairs or withdraws what cannot.",
		"internal/node":         "Package node assembles a running celler from a Config and stops it in the reverse order.",
		"internal/config":       "Package config merges defaults, file, environment and flags into one validated Config; nobody else reads the environment.",
		"internal/telemetry":    "Package telemetry builds the logger, the metrics set and the tracer that others receive.",
		"internal/queue":        "Package queue keeps the store paths that are still to be pushed on the local disk.",
		"internal/agent":        "Package agent works off the queue of paths to push until nothing is left of it.",
		"internal/storewatch":   "Package storewatch tells which paths become valid in the local Nix store.",
		"internal/nixstore":     "Package nixstore asks the local Nix store for closures, path info and NARs.",
		"internal/twosha":       "Package twosha computes two SHA-256 at a time on one core.",
		"internal/ui":           "Package ui prints progress, tables and errors for people, or JSON events for machines.",
		"internal/sim":          "Package sim runs many nodes against one simulated bucket in a deterministic world.",
		"internal/repolint":     "Package repolint holds the repository's own rules as tests.",
	}
}
