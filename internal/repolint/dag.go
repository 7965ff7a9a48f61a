package repolint

// Allowed returns, for each package by its folder, the packages of ours that it
// may import outside its tests. Every arrow points to a lower level, so there can
// be no cycle; the picture is in DESIGN.md.
func Allowed() map[string][]string {
	// Everything from level 0 to 4 but the client's side: what a node may assemble.
	server := []string{
		"nix", "nix/nar", "blob", "blob/chunk", "blob/pack", "blob/chunkstore",
		"blob/s3blob", "blob/fileblob", "blob/memblob", "wal", "index", "index/keyspace", "compact",
		"gc", "httpapi", "httpapi/wire", "internal/fsck", "internal/recovery", "internal/auth", "internal/catalog",
		"internal/config", "internal/telemetry",
	}
	return map[string][]string{
		"cmd/celler": {
			"internal/node", "client", "internal/ui", "internal/config", "internal/telemetry",
			"internal/agent", "internal/queue", "internal/storewatch",
		},

		"internal/agent": {"client", "internal/queue", "nix"},

		"internal/node": server,

		"gc":      {"internal/catalog", "blob/chunkstore", "blob/chunk", "nix"},
		"httpapi": {"internal/catalog", "internal/auth", "internal/compression", "blob/chunkstore", "httpapi/wire", "nix/nar", "blob/chunk", "nix"},

		"internal/fsck":     {"internal/catalog", "blob/chunkstore", "blob/chunk", "blob", "nix", "wal"},
		"internal/recovery": {"wal", "index", "index/keyspace", "compact", "blob", "blob/pack", "blob/chunk"},

		"internal/catalog": {"wal", "index", "index/keyspace", "blob/chunk", "nix"},
		"client":           {"httpapi/wire", "internal/nixstore", "nix/nar", "blob/chunk", "nix", "internal/twosha"},

		"index":             {"wal", "index/keyspace", "blob"},
		"compact":           {"wal", "blob"},
		"blob/chunkstore":   {"blob", "blob/pack", "blob/chunk"},
		"internal/nixstore": {"nix/nar", "nix"},
		"internal/queue":    {"nix"},

		"internal/storewatch": {"internal/nixstore", "nix"},

		"wal":            {"blob"},
		"index/keyspace": {"blob/chunk", "nix"},
		"httpapi/wire":   {"blob/chunk", "nix"},
		"blob/pack":      {"blob", "blob/chunk"},
		"blob/s3blob":    {"blob"},
		"blob/fileblob":  {"blob"},
		"blob/memblob":   {"blob"},
		"nix/nar":        {"nix"},
		"internal/auth":  {"nix"},

		"nix":                   nil,
		"blob":                  nil,
		"blob/chunk":            {"internal/twosha"},
		"internal/twosha":       nil,
		"internal/ui":           nil,
		"internal/telemetry":    nil,
		"internal/config":       nil,
		"internal/compression":  nil,
		"internal/repolint":     nil,
		"internal/bench":        {"nix", "nix/nar", "wal", "blob", "blob/s3blob", "blob/chunk", "index/keyspace", "blob/memblob", "index", "wal/waltest", "internal/catalog"},
		"internal/benchstorage": {"blob", "blob/memblob", "blob/fileblob", "blob/chunk", "blob/chunkstore", "index/keyspace", "nix", "nix/nar"},

		// For tests only: each imports its subject and what that may import.
		"nix/nixtest":   {"nix", "nix/nar"},
		"blob/blobtest": {"blob", "blob/memblob"},
		"wal/waltest":   {"wal", "blob", "blob/memblob", "blob/blobtest"},
		"internal/sim":  {"gc", "httpapi", "httpapi/wire", "internal/auth", "nix/nar", "internal/fsck", "blob/chunkstore", "blob/pack", "wal", "wal/waltest", "index", "compact", "index/keyspace", "blob", "blob/memblob", "blob/blobtest", "blob/chunk", "internal/catalog", "nix"},
	}
}

// testOnly are the packages that nothing but tests and each other may import, and the
// commands that only measure.
func testOnly() []string {
	return []string{"nix/nixtest", "blob/blobtest", "wal/waltest", "internal/sim", "internal/bench", "internal/benchstorage"}
}

// stdOnly are the packages that import the standard library and nothing else:
// they are the floor, and useful to strangers because of it.
func stdOnly() []string {
	return []string{"nix", "nix/nar", "blob", "blob/chunk", "httpapi/wire", "internal/twosha"}
}

// heavy says which packages may import a heavy dependency directly (owners), and
// which must not even reach it (never).
func heavy() []heavyDep {
	return []heavyDep{
		{path: "github.com/aws/", owners: []string{"blob/s3blob"}, never: []string{"client", "wal", "index", "httpapi"}},
		{path: "github.com/cockroachdb/pebble", owners: []string{"index", "compact", "internal/sim", "internal/bench"}, never: []string{"client", "wal", "blob/chunkstore"}},
		{path: "go.opentelemetry.io/otel/sdk", owners: []string{"internal/telemetry", "internal/node"}, never: []string{"client", "httpapi", "wal", "index"}},
		{path: "google.golang.org/grpc", owners: nil, never: []string{"client", "httpapi", "wal", "index"}},
		{path: "github.com/alecthomas/kong", owners: []string{"cmd/celler", "internal/config"}, never: []string{"client", "httpapi"}},
	}
}

type heavyDep struct {
	path   string   // import path prefix
	owners []string // may import it directly
	never  []string // must not link it at all
}
