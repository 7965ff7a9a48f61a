package config_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/internal/config"
)

// load does what celler serve does with its arguments: parse them over the file.
func load(t *testing.T, env map[string]string, toml string, args ...string) (config.Config, []string, error) {
	t.Helper()
	vars := map[string]string{"HOME": "/home/u"}
	for name, value := range env {
		vars[name] = value
		t.Setenv(name, value) // kong reads the variables of flags itself
	}
	path := ""
	if toml != "" {
		path = filepath.Join(t.TempDir(), "server.toml")
		if err := os.WriteFile(path, []byte(toml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var c config.Config
	e := config.NewEnv(vars)
	file, err := config.LoadFile(e, path)
	if err != nil {
		return c, nil, err
	}
	options := []kong.Option{kong.Exit(func(int) { t.Fatal("kong wants to exit") })}
	if file != nil {
		options = append(options, kong.Resolvers(file))
	}
	parser, err := kong.New(&c, options...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		return c, nil, err
	}
	if err := c.Complete(e, file); err != nil {
		return c, nil, err
	}
	if file == nil {
		return c, nil, nil
	}
	return c, file.Notices, nil
}

func mkScrub() config.Scrub {
	return config.Scrub{BytesPerDay: 10 << 30, Interval: config.Span(30 * 24 * time.Hour)}
}

func mkGC() config.GC {
	return config.GC{Interval: config.Span(12 * time.Hour), NarGrace: config.Span(30 * 24 * time.Hour), ReaderGrace: config.Span(24 * time.Hour)}
}

func TestDefaults(t *testing.T) {
	got, _, err := load(t, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	const bucket = "/home/u/.local/share/celler/bucket"
	want := config.Config{
		Buckets:        config.Buckets{Bucket: bucket, LogBucket: bucket, DataBucket: bucket, Default: true},
		Listen:         "[::]:8080",
		CacheDir:       "/home/u/.cache/celler",
		ResidentBytes:  10 << 30,
		Memory:         208 << 20,
		MaxNarInfoSize: 1 << 20, AbsentReferences: "accept",
		DrainTimeout: config.Span(30 * time.Second),
		Maintenance:  "on", MaintenanceInterval: config.Span(5 * time.Minute), MaintenanceSegments: 1000,
		Compact: config.Compact{LogRetention: config.Span(7 * 24 * time.Hour), KeepSegments: 1000},
		GC:      mkGC(),
		Scrub:   mkScrub(),
		WAL:     config.WAL{PollInterval: config.Span(time.Second), MaxStaleness: config.Span(time.Minute)},
		Log:     config.Log{Level: "info", Format: "text"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(config.JWT{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPrecedence(t *testing.T) {
	const file = "listen = \"file:1\"\n[log]\nlevel = \"warn\"\n[wal]\npoll-interval = \"5s\"\n"
	want := func(why, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %q, want %q", why, got, want)
		}
	}
	c, _, err := load(t, nil, file)
	if err != nil {
		t.Fatal(err)
	}
	want("file over default", c.Listen, "file:1")
	want("a section of the file", c.Log.Level, "warn")
	want("a span in a section", c.WAL.PollInterval.String(), "5s")

	c, _, err = load(t, map[string]string{"CELLER_LISTEN": "env:2", "CELLER_LOG_LEVEL": "error"}, file)
	if err != nil {
		t.Fatal(err)
	}
	want("variable over file", c.Listen, "env:2")
	want("variable over a section", c.Log.Level, "error")

	c, _, err = load(t, map[string]string{"CELLER_LISTEN": "env:2"}, file, "--listen=flag:3", "--wal.poll-interval=7s")
	if err != nil {
		t.Fatal(err)
	}
	want("flag over variable", c.Listen, "flag:3")
	want("flag over a section", c.WAL.PollInterval.String(), "7s")
}

// A file as an Attic server has it, nothing taken out.
const atticLocal = `
listen = "[::]:8080"
allowed-hosts = ["cache.example.org", "localhost:8080"]
api-endpoint = "https://cache.example.org/"
soft-delete-caches = true
require-proof-of-possession = false
max-nar-info-size = 2097152

[database]
url = "sqlite:///var/lib/atticd/server.db?mode=rwc"
heartbeat = true

[storage]
type = "local"
path = "/var/lib/atticd/storage"

[chunking]
nar-size-threshold = 65536
min-size = 16384
avg-size = 65536
max-size = 262144

[compression]
type = "zstd"
level = 8

[garbage-collection]
interval = "6 hours"
default-retention-period = "6 months"

[jwt]
token-bound-issuer = "issuer"
token-bound-audiences = ["a", "b,c"]

[jwt.signing]
token-hs256-secret-base64 = "c2VjcmV0"
`

func TestAtticFile(t *testing.T) {
	got, notices, err := load(t, nil, atticLocal)
	if err != nil {
		t.Fatal(err)
	}
	got.JWT.File = nil
	const bucket = "/var/lib/atticd/storage/celler"
	attic := mkGC()
	attic.Interval, attic.Retention = config.Span(6*time.Hour), config.Span(6*2630016*time.Second)
	want := config.Config{
		Buckets:        config.Buckets{Bucket: bucket, LogBucket: bucket, DataBucket: bucket},
		Listen:         "[::]:8080",
		CacheDir:       "/home/u/.cache/celler",
		ResidentBytes:  10 << 30,
		Memory:         208 << 20,
		APIEndpoint:    "https://cache.example.org/",
		AllowedHosts:   []string{"cache.example.org", "localhost:8080"},
		MaxNarInfoSize: 2 << 20,
		DrainTimeout:   config.Span(30 * time.Second),
		TrustHashes:    true, AbsentReferences: "accept",
		JWT:         config.JWT{TokenBoundIssuer: "issuer", TokenBoundAudiences: []string{"a", "b,c"}},
		Maintenance: "on", MaintenanceInterval: config.Span(5 * time.Minute), MaintenanceSegments: 1000,
		Compact: config.Compact{LogRetention: config.Span(7 * 24 * time.Hour), KeepSegments: 1000},
		GC:      attic,
		Scrub:   mkScrub(),
		WAL:     config.WAL{PollInterval: config.Span(time.Second), MaxStaleness: config.Span(time.Minute)},
		Log:     config.Log{Level: "info", Format: "text"},
		Signing: config.Signing{Kind: config.HS256, Text: "c2VjcmV0", From: got.Signing.From},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(config.JWT{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, section := range []string{"[database]", "[chunking]", "[compression]", "[storage]", "soft-delete-caches", "require-proof-of-possession"} {
		if !strings.Contains(strings.Join(notices, "\n"), section) {
			t.Errorf("no notice about %s in %q", section, notices)
		}
	}
	if text := got.Signing.String() + got.Signing.GoString(); strings.Contains(text, "c2VjcmV0") {
		t.Errorf("printing the key shows it: %s", text)
	}
}

func TestAtticS3(t *testing.T) {
	got, _, err := load(t, nil, `
[storage]
type = "s3"
region = "eu-1"
bucket = "nix"
endpoint = "https://s3.example.org"
some-new-key = 1
[storage.credentials]
access_key_id = "AK"
secret_access_key = "SK"
`)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Buckets{
		Bucket: "s3://nix/celler?endpoint=https%3A%2F%2Fs3.example.org&path-style=true&region=eu-1",
		S3:     config.S3Credentials{AccessKeyID: "AK", SecretAccessKey: "SK"},
	}
	want.LogBucket, want.DataBucket = want.Bucket, want.Bucket
	if diff := cmp.Diff(want, got.Buckets); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFileInEnvironment(t *testing.T) {
	for _, name := range []string{"CELLER_SERVER_CONFIG_BASE64", "ATTIC_SERVER_CONFIG_BASE64"} {
		text := base64.StdEncoding.EncodeToString([]byte("listen = \"h:1\"\n"))
		c, _, err := load(t, map[string]string{name: text + "\n"}, "")
		if err != nil || c.Listen != "h:1" {
			t.Errorf("%s: listen = %q, %v", name, c.Listen, err)
		}
	}
}

func TestBadFile(t *testing.T) {
	bad := func(toml, position, problem string) {
		t.Helper()
		_, _, err := load(t, nil, toml)
		file, ok := errors.AsType[*config.FileError](err)
		if !ok {
			t.Errorf("%q: got %v, want a FileError", toml, err)
			return
		}
		if !strings.HasSuffix(strings.SplitN(file.Error(), ".toml", 2)[1], position+": "+problem) {
			t.Errorf("%q: got %q, want it to end in %q", toml, file.Error(), position+": "+problem)
		}
	}

	bad("listen = \"a:1\"\nlissen = 2\n", ":2:1", `unknown key "lissen"`)
	bad("[wal]\npoll = 1\n", ":2:1", `unknown key "wal.poll"`)
	bad("[s3]\nx = 1\n", ":1:2", `unknown key "s3"`)
	bad("listen = \n", ":1:10", "unexpected character U+000A at start of value")
	bad("listen = 5\n", ":1:10", "expected text in quotes, found integer")
	bad("allowed-hosts = \"x\"\n", ":1:17", `expected a list such as ["a", "b"], found string`)
	bad("log = 5\n", ":1:7", "expected a section, found integer")
	bad("[compact]\nkeep-segments = \"x\"\n", ":2:17", "expected a number, found string")
	bad("require-proof-of-possession = 3\n", ":1:31", "expected true or false, found integer")
	bad("token-hs256-secret-base64 = \"x\"\n", "", `"token-hs256-secret-base64" stands at the top level; move it into a section [jwt.signing]`)
	bad("[storage]\ntype = \"ftp\"\n", "", `[storage] has type "ftp"; expected "local" or "s3"`)
	bad("[jwt.signing]\n", "", "[jwt.signing] has 0 keys; expected exactly one")
}

// TestBadFileKeepsSecrets: what is said of a broken file ends up in logs.
func TestBadFileKeepsSecrets(t *testing.T) {
	for _, toml := range []string{
		"listen = \n[jwt.signing]\ntoken-hs256-secret-base64 = \"c2VzYW1l\"\n",
		"[jwt.signing]\ntoken-hs256-secret-base64 = \"c2VzYW1l\n",
		"[jwt.signing]\ntoken-hs256-secret-base64 = c2VzYW1l\n",
		"[jwt.signing]\ntoken-hs256-secret-base64 = \"c2VzYW1l\" x\n",
		"[jwt.signing]\ntoken-hs256-secret-base64 = [\"c2VzYW1l\"]\n",
		"lissen = 2\n[jwt.signing]\ntoken-hs256-secret-base64 = \"c2VzYW1l\"\n",
	} {
		_, _, err := load(t, nil, toml)
		file, ok := errors.AsType[*config.FileError](err)
		if !ok || file.Line == 0 {
			t.Errorf("%q: got %v, want a FileError with a place", toml, err)
		}
		if text := fmt.Sprintf("%v %+v", err, file); strings.Contains(text, "c2VzYW1l") {
			t.Errorf("%q: the secret is shown: %s", toml, text)
		}
	}
}

func TestBadFileValues(t *testing.T) {
	for _, toml := range []string{"listen = 5\n", "resident-bytes = \"lots\"\n", "[wal]\npoll-interval = \"soon\"\n", "allowed-hosts = \"x\"\n"} {
		_, _, err := load(t, nil, toml)
		file, ok := errors.AsType[*config.FileError](err)
		if !ok || file.Line == 0 {
			t.Errorf("%q: got %v, want a FileError with a place", toml, err)
		}
	}
}

func TestBadValues(t *testing.T) {
	for _, arg := range []string{
		"--listen=8080", "--api-endpoint=cache.example.org", "--bucket=http://x", "--bucket=s3:x",
		"--wal.poll-interval=0", "--wal.poll-interval=31s", "--wal.max-staleness=1s", "--resident-bytes=x", "--log.level=loud",
	} {
		if c, _, err := load(t, nil, "", arg); err == nil {
			t.Errorf("%s was accepted: %+v", arg, c)
		}
	}
}

func TestSigningSources(t *testing.T) {
	dir := t.TempDir()
	for name, body := range map[string]string{"secret": "ZmlsZQ==\n", "token-hs256-secret-base64": "Y3JlZA==\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	from := func(env map[string]string, kind, text string) {
		t.Helper()
		c, _, err := load(t, env, "")
		if err != nil || c.Signing.Kind != kind || c.Signing.Text != text {
			t.Errorf("%v: got %q %q, %v; want %q %q", env, c.Signing.Kind, c.Signing.Text, err, kind, text)
		}
	}

	from(map[string]string{"CELLER_SERVER_TOKEN_HS256_SECRET_BASE64": "YQ=="}, config.HS256, "YQ==")
	from(map[string]string{"CELLER_SERVER_TOKEN_HS256_SECRET_BASE64": "", "ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64": "Yg=="}, config.RS256, "Yg==")
	from(map[string]string{"ATTIC_SERVER_TOKEN_RS256_PUBKEY_BASE64": "Yw==", "ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64": ""}, config.RS256Public, "Yw==")
	from(map[string]string{"ATTIC_SERVER_TOKEN_RS256_PUBKEY_BASE64": "", "CELLER_SERVER_TOKEN_HS256_SECRET_BASE64_FILE": filepath.Join(dir, "secret")}, config.HS256, "ZmlsZQ==")
	from(map[string]string{"CELLER_SERVER_TOKEN_HS256_SECRET_BASE64_FILE": "", "CREDENTIALS_DIRECTORY": dir}, config.HS256, "Y3JlZA==")
}

func TestUnits(t *testing.T) {
	size := func(text string, want config.Bytes) {
		t.Helper()
		if got, err := config.ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	size("0", 0)
	size("1048576", 1<<20)
	size("8MiB", 8<<20)
	size("10 GB", 10e9)
	size("1.5k", 1500)
	for _, text := range []string{"", "-1", "8 MBit", "MiB", "1e300TiB", "99999999TiB"} {
		if got, err := config.ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", text, got)
		}
	}

	span := func(text string, want time.Duration) {
		t.Helper()
		if got, err := config.ParseSpan(text); err != nil || time.Duration(got) != want {
			t.Errorf("ParseSpan(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	span("0", 0)
	span("30s", 30*time.Second)
	span("1h30m", 90*time.Minute)
	span("12 hours", 12*time.Hour)
	span("2years 2min", 2*31557600*time.Second+2*time.Minute)
	span("1 month", 2630016*time.Second)
	span("500ms", 500*time.Millisecond)
	for _, text := range []string{"", "5", "s", "1 fortnight", "1..2s", "400 years", "-1s", "1ss"} {
		if got, err := config.ParseSpan(text); err == nil {
			t.Errorf("ParseSpan(%q) = %v, want an error", text, got)
		}
	}
}

// What is no name of a cache must not become part of a URL.
func TestBadCacheReference(t *testing.T) {
	c := config.Client{Servers: map[string]config.Server{"s": {Endpoint: "http://h/"}}}
	for _, ref := range []string{"", "../x", "a/b", "s:../x", "s:", "s:a:b", "a b", "-a", "a?b", "a%2fb", "http://h/..", "http://h/a b", "http://h/", strings.Repeat("a", 51)} {
		if r, err := c.Resolve(config.NewEnv(nil), ref); err == nil {
			t.Errorf("%q: %+v", ref, r)
		}
	}
	for _, ref := range []string{"a", "s:a-b_c+D", "http://h/x/a/", strings.Repeat("a", 50)} {
		if _, err := c.Resolve(config.NewEnv(nil), ref); err != nil {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

func TestScrub(t *testing.T) {
	for _, bad := range []config.Scrub{{BytesPerDay: -1, Interval: config.Span(time.Hour)}, {BytesPerDay: 1, Interval: config.Span(time.Minute)}} {
		if err := bad.Check(); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	for _, good := range []config.Scrub{{}, {Interval: 1}, mkScrub()} {
		if err := good.Check(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
}

// TestErrorsKeepSecrets: an address that is refused may have credentials in it.
func TestErrorsKeepSecrets(t *testing.T) {
	for value, want := range map[string]string{
		"https://key:hunter2@host/x":       "https://***@host/x",
		"https://key:hunt?er2#@host/x":     "https://***@host/x",
		"s3:key:hunter2@bucket":            "s3:***@bucket",
		"key:hunter2@bucket":               "key:***@bucket",
		"gs://bucket?token=hunter2":        "gs://bucket?***",
		"gs://bucket#hunter2":              "gs://bucket#***",
		"127.0.0.1:70000":                  "127.0.0.1:70000",
		"/nix/store/x-what?name=me@here":   "/nix/store/x-what?name=me@here",
		"https://cache.example.org/a/b//c": "https://cache.example.org/a/b//c",
	} {
		err := &config.ValueError{Key: "bucket", Value: value, Want: "s3://NAME"}
		if got := err.Error(); got != `bucket is "`+want+`"; expected s3://NAME` {
			t.Errorf("%s: %s", value, got)
		}
	}
}
