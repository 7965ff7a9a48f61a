package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Config is everything celler serve can be told. A field is a flag, a variable and a
// key of the file, all by the same words; its help text is the manual.
type Config struct {
	Buckets `embed:""`

	Listen              string   `toml:"listen" default:"[::]:8080" env:"CELLER_LISTEN" placeholder:"ADDR" help:"Address to listen on; port 0 takes a free one. A socket passed by systemd wins over it (${default})."`
	AddressFile         string   `toml:"address-file" env:"CELLER_ADDRESS_FILE" placeholder:"FILE" help:"Write the address listened on into this file once the server is ready."`
	CacheDir            string   `toml:"cache-dir" env:"CELLER_CACHE_DIR" placeholder:"DIR" help:"Directory for what can be made again from the bucket: the index, and resident copies of packs ($$XDG_CACHE_HOME/celler)."`
	ResidentBytes       Bytes    `toml:"resident-bytes" default:"10GiB" env:"CELLER_RESIDENT_BYTES" placeholder:"SIZE" help:"Disk that resident copies of packs may take; 0 for none (${default})."`
	Memory              Bytes    `toml:"memory" default:"208MiB" env:"CELLER_MEMORY" placeholder:"SIZE" help:"Memory beyond which garbage is collected eagerly, a soft limit; 0 for none. GOMEMLIMIT wins over it (${default})."`
	APIEndpoint         string   `toml:"api-endpoint" name:"api-endpoint" env:"CELLER_API_ENDPOINT" placeholder:"URL" help:"URL under which clients reach this server (made from the Host header)."`
	SubstituterEndpoint string   `toml:"substituter-endpoint" env:"CELLER_SUBSTITUTER_ENDPOINT" placeholder:"URL" help:"URL under which Nix reaches the caches, if it is another (api-endpoint)."`
	AllowedHosts        []string `toml:"allowed-hosts" env:"CELLER_ALLOWED_HOSTS" placeholder:"HOST" help:"Answer only requests whose Host header equals one of these, port included (any)."`
	MaxNarInfoSize      Bytes    `toml:"max-nar-info-size" default:"1MiB" env:"CELLER_MAX_NAR_INFO_SIZE" placeholder:"SIZE" help:"Longest description of one uploaded path (${default})."`
	AbsentReferences    string   `toml:"absent-references" default:"accept" enum:"accept,refuse" env:"CELLER_ABSENT_REFERENCES" help:"What becomes of a path that is pushed and refers to paths that are not in its cache: ${enum} (${default})."`
	Advertise           string   `toml:"advertise" env:"CELLER_ADVERTISE" placeholder:"URL" help:"URL under which other servers of the bucket reach this one, such as http://10.0.0.3:8080; they then tell each other what is new (none: they find out by looking)."`
	DrainTimeout        Span     `toml:"drain-timeout" default:"30s" env:"CELLER_DRAIN_TIMEOUT" placeholder:"SPAN" help:"How long a server that was told to stop waits for requests in flight (${default})."`
	JWT                 JWT      `toml:"jwt" embed:"" prefix:"jwt."`
	Maintenance         string   `toml:"maintenance" default:"on" enum:"on,off" env:"CELLER_MAINTENANCE" help:"Whether this server compacts the log, collects garbage and reads packs back: ${enum} (${default})."`
	MaintenanceInterval Span     `toml:"maintenance-interval" default:"5m" env:"CELLER_MAINTENANCE_INTERVAL" placeholder:"SPAN" help:"How often it looks whether there is something to do (${default})."`
	MaintenanceSegments int      `toml:"maintenance-segments" default:"1000" env:"CELLER_MAINTENANCE_SEGMENTS" placeholder:"N" help:"New segments after which it looks earlier (${default})."`
	Compact             Compact  `toml:"compact" embed:"" prefix:"compact."`
	GC                  GC       `toml:"garbage-collection" embed:"" prefix:"garbage-collection."`
	Scrub               Scrub    `toml:"scrub" embed:"" prefix:"scrub."`
	WAL                 WAL      `toml:"wal" embed:"" prefix:"wal."`
	Log                 Log      `toml:"log" embed:"" prefix:"log."`

	// What Complete adds.
	Signing        Signing `toml:"-" kong:"-"` // zero: the bucket keeps the secret
	TracesEndpoint string  `toml:"-" kong:"-"` // "" for no traces
	// TrustHashes comes from Attic's require-proof-of-possession = false: an uploader
	// need not send a NAR that the store has.
	TrustHashes bool `toml:"-" kong:"-"`
}

// Buckets says where objects live. Every verb on the server's side needs it.
type Buckets struct {
	Bucket     string `toml:"bucket" env:"CELLER_BUCKET" placeholder:"URL" help:"Bucket for the log and the data: a directory, or s3://NAME/PREFIX?region=…&endpoint=… ($$XDG_DATA_HOME/celler/bucket)."`
	LogBucket  string `toml:"log-bucket" env:"CELLER_LOG_BUCKET" placeholder:"URL" help:"Bucket for the log alone; it must keep the promises of conditional writes (bucket)."`
	DataBucket string `toml:"data-bucket" env:"CELLER_DATA_BUCKET" placeholder:"URL" help:"Bucket for the packs alone; any that can put, get and delete (bucket)."`

	// S3 comes from Attic's [storage.credentials]; zero: the SDK's own chain.
	S3 S3Credentials `toml:"-" kong:"-"`
	// Default says that no bucket was named and the local directory is used.
	Default bool `toml:"-" kong:"-"`
}

// S3Credentials are the keys that stand in a file of Attic's.
type S3Credentials struct{ AccessKeyID, SecretAccessKey string }

// JWT says which tokens are accepted.
type JWT struct {
	TokenBoundIssuer    string   `toml:"token-bound-issuer" env:"CELLER_JWT_TOKEN_BOUND_ISSUER" placeholder:"ISS" help:"Accept only tokens with this issuer, and mint them so (any)."`
	TokenBoundAudiences []string `toml:"token-bound-audiences" env:"CELLER_JWT_TOKEN_BOUND_AUDIENCES" placeholder:"AUD" help:"Accept only tokens for one of these audiences, and mint them so (any)."`

	File *signingKeys `toml:"signing" kong:"-"`
}

// WAL tunes the log.
type WAL struct {
	PollInterval Span `toml:"poll-interval" default:"1s" env:"CELLER_WAL_POLL_INTERVAL" placeholder:"SPAN" help:"How often to look for what other servers have written (${default})."`
	MaxStaleness Span `toml:"max-staleness" default:"60s" env:"CELLER_WAL_MAX_STALENESS" placeholder:"SPAN" help:"How old the view of the log may be while this server calls itself ready (${default})."`
}

// Compact says how much of the log stays in the bucket although a snapshot has it.
type Compact struct {
	LogRetention Span `toml:"log-retention" default:"7 days" env:"CELLER_COMPACT_LOG_RETENTION" placeholder:"SPAN" help:"How long segments stay in the log after they were folded into a snapshot; 0s for no longer than needed (${default})."`
	KeepSegments int  `toml:"keep-segments" default:"1000" env:"CELLER_COMPACT_KEEP_SEGMENTS" placeholder:"N" help:"How many of the newest segments stay in the log however old they are (${default})."`
}

// Check reports values that cannot be used.
func (c *Compact) Check() error {
	if c.LogRetention < 0 {
		return &ValueError{"compact.log-retention", c.LogRetention.String(), "a span that is not negative"}
	}
	if c.KeepSegments < 0 {
		return &ValueError{"compact.keep-segments", fmt.Sprint(c.KeepSegments), "a number that is not negative"}
	}
	return nil
}

// Log says how the server speaks to its operator.
type Log struct {
	Level  string `toml:"level" default:"info" enum:"debug,info,warn,error" env:"CELLER_LOG_LEVEL" help:"Least important line to log: ${enum} (${default})."`
	Format string `toml:"format" default:"text" enum:"text,json" env:"CELLER_LOG_FORMAT" help:"Form of a line: ${enum} (${default})."`
}

// ValueError reports a setting whose value cannot be used.
type ValueError struct {
	Key   string // as in the file and, with two dashes, on the command line
	Value string
	Want  string // what would do
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("%s is %q; expected %s", e.Key, redact(e.Value), e.Want)
}

// redact removes from a URL what may be a secret, since logs keep what is printed: all
// before an @, and parameters.
func redact(value string) string {
	scheme, rest, ok := strings.Cut(value, ":")
	if !ok {
		return value
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		slashes := rest[:len(rest)-len(strings.TrimLeft(rest, "/"))]
		rest = slashes + "***@" + rest[i+1:]
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 && strings.HasPrefix(rest, "//") {
		rest = rest[:i+1] + "***"
	}
	return scheme + ":" + rest
}

// Complete fills in what flags cannot say (secrets, places that depend on the
// environment) and checks the whole. It touches no network.
func (c *Config) Complete(env Env, file *File) error {
	if err := c.Buckets.Complete(env, file); err != nil {
		return err
	}
	if c.CacheDir == "" {
		c.CacheDir = filepath.Join(env.cacheHome(), "celler")
	}
	var err error
	if c.Signing, err = loadSigning(env, c.JWT.File, file); err != nil {
		return err
	}
	c.TrustHashes = file != nil && file.trustHashes
	c.TracesEndpoint, _ = env.first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return &ValueError{"listen", c.Listen, "HOST:PORT, such as 127.0.0.1:8080 or [::]:8080"}
	}
	if err := endpoint("api-endpoint", &c.APIEndpoint); err != nil {
		return err
	}
	if err := endpoint("substituter-endpoint", &c.SubstituterEndpoint); err != nil {
		return err
	}
	if err := endpoint("advertise", &c.Advertise); err != nil {
		return err
	}
	for _, s := range []struct {
		key  string
		span Span
	}{{"wal.poll-interval", c.WAL.PollInterval}, {"wal.max-staleness", c.WAL.MaxStaleness}} {
		if s.span <= 0 {
			return &ValueError{s.key, s.span.String(), "a span longer than nothing"}
		}
	}
	if c.WAL.MaxStaleness < 2*c.WAL.PollInterval {
		return &ValueError{
			"wal.max-staleness", c.WAL.MaxStaleness.String(),
			"at least twice wal.poll-interval, which is " + c.WAL.PollInterval.String() + ": between two looks the server would refuse requests",
		}
	}
	return c.checkMaintenance()
}

// checkMaintenance checks what concerns compaction and collection.
func (c *Config) checkMaintenance() error {
	if c.Maintenance == "on" && c.MaintenanceInterval <= 0 {
		return &ValueError{"maintenance-interval", c.MaintenanceInterval.String(), "a span longer than nothing"}
	}
	if c.Maintenance == "on" && c.MaintenanceSegments <= 0 {
		return &ValueError{"maintenance-segments", fmt.Sprint(c.MaintenanceSegments), "a number from 1"}
	}
	if err := c.Scrub.Check(); err != nil {
		return err
	}
	if c.GC == (GC{}) {
		return c.Compact.Check() // made by hand, without a file or flags: what package gc thinks best
	}
	if c.GC.ReaderGrace < c.WAL.MaxStaleness {
		return &ValueError{"garbage-collection.reader-grace", c.GC.ReaderGrace.String(), "at least wal.max-staleness, which is " + c.WAL.MaxStaleness.String()}
	}
	if err := c.Compact.Check(); err != nil {
		return err
	}
	return c.GC.Check(c.Compact.LogRetention)
}

// endpoint checks a URL, if there is one, and ends it in a slash.
func endpoint(key string, value *string) error {
	if *value == "" {
		return nil
	}
	u, err := url.Parse(*value)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" {
		return &ValueError{key, *value, "a URL such as https://cache.example.org/"}
	}
	*value = strings.TrimRight(*value, "/") + "/"
	return nil
}

// CompleteTokens fills in only what making a token needs: the bucket and the key.
func (c *Config) CompleteTokens(env Env, file *File) (err error) {
	if err := c.Buckets.Complete(env, file); err != nil {
		return err
	}
	c.Signing, err = loadSigning(env, c.JWT.File, file)
	return err
}

// Complete takes the bucket from Attic's [storage] or from the default place if none
// was named, and lets the two buckets default to the one.
func (b *Buckets) Complete(env Env, file *File) error {
	if err := checkBucketURL("bucket", b.Bucket); err != nil {
		return err
	}
	if b.Bucket == "" && (b.LogBucket == "" || b.DataBucket == "") {
		b.Default = true
		b.Bucket = filepath.Join(env.dataHome(), "celler", "bucket")
	}
	if b.LogBucket == "" {
		b.LogBucket = b.Bucket
	}
	if b.DataBucket == "" {
		b.DataBucket = b.Bucket
	}
	if file != nil && file.s3 != (S3Credentials{}) && b.Bucket == file.bucket {
		b.S3 = file.s3
	}
	if err := checkBucketURL("log-bucket", b.LogBucket); err != nil {
		return err
	}
	return checkBucketURL("data-bucket", b.DataBucket)
}

// Same says that log and data share one bucket.
func (b *Buckets) Same() bool { return b.LogBucket == b.DataBucket }

func checkBucketURL(key, value string) error {
	scheme, rest, ok := strings.Cut(value, ":")
	if !ok || strings.ContainsAny(scheme, "/.") {
		return nil // a path
	}
	if !slices.Contains([]string{"file", "mem", "s3"}, scheme) || (scheme != "mem" && !strings.HasPrefix(rest, "//")) {
		return &ValueError{key, value, "a directory, file:///DIR, mem: or s3://NAME"}
	}
	return nil
}

// String says what kind of key it is and where it came from, and nothing about its value.
func (s Signing) String() string {
	if s.Kind == "" {
		return "secret kept in the bucket"
	}
	return s.Kind + " key from " + s.From
}

// GoString keeps the key out of %#v as well.
func (s Signing) GoString() string { return "config.Signing(" + s.String() + ")" }
