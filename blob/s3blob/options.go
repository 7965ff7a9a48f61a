package s3blob

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/celler/celler/blob"
)

// Checksum says when the SDK adds checksums to requests and checks those of answers.
type Checksum string

// The checksum modes.
const (
	// ChecksumWhenRequired adds them only where S3 demands one. It is the
	// default for other servers than AWS, some of which refuse the rest.
	ChecksumWhenRequired Checksum = "when-required"
	// ChecksumWhenSupported adds them wherever S3 knows one. It is the default
	// for AWS, and needed for buckets with Object Lock.
	ChecksumWhenSupported Checksum = "when-supported"
)

// RegionAuto asks for the region to be found out.
const RegionAuto = "auto"

const (
	defaultTimeout     = 30 * time.Second
	defaultMaxAttempts = 5
	minBytesPerSecond  = 64 << 10 // a body sent more slowly than this has stalled
)

// Options says where a bucket is and how to talk to it. Only Bucket is required.
type Options struct {
	Bucket   string
	Prefix   string // put before every key, with a slash between; default none
	Endpoint string // scheme and host of the server; default AWS, or AWS_ENDPOINT_URL
	Region   string // default: the SDK's chain, else RegionAuto

	// PathStyle puts the bucket's name into the path and not into the host name.
	// Default: true with an Endpoint, false without.
	PathStyle *bool

	Profile  string   // of the shared configuration files; default AWS_PROFILE
	Checksum Checksum // default by Endpoint

	// Static credentials; default the SDK's chain.
	AccessKeyID, SecretAccessKey, SessionToken string

	// Timeout bounds the wait for an answer, in each attempt: for the headers,
	// and between two pieces of a body. What a body needs to be sent at 64 KiB/s
	// is added. Default 30 s.
	Timeout time.Duration

	// MaxAttempts bounds how often a request that may be repeated is sent.
	// Create and Swap never are. Default 5.
	MaxAttempts int

	Logger *slog.Logger // default: discard

	// WrapTransport, if set, wraps the HTTP transport: tracing, or a test that
	// plays the server.
	WrapTransport func(http.RoundTripper) http.RoundTripper
}

// ParseURL reads an address of the form
//
//	s3://bucket[/prefix][?endpoint=URL&region=NAME&path-style=BOOL&profile=NAME&checksum=MODE&timeout=DURATION]
//
// Unknown parameters are errors: a misspelt one would send data elsewhere.
func ParseURL(address string) (Options, error) {
	bad := func(format string, args ...any) (Options, error) {
		return Options{}, fmt.Errorf("bucket address %q: %s", redact(address), fmt.Sprintf(format, args...))
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return bad("not a URL")
	case u.Scheme != "s3":
		return bad("expected s3://bucket, found scheme %q", u.Scheme)
	case u.User != nil:
		return bad("credentials do not belong into an address: use the environment or a profile")
	case u.Host == "":
		return bad("no bucket name: expected s3://bucket")
	case u.Fragment != "":
		return bad("unexpected fragment")
	}
	o := Options{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bad("parameters: %v", err)
	}
	for name, values := range query {
		if len(values) != 1 {
			return bad("parameter %s is given %d times", name, len(values))
		}
		if err := o.set(name, values[0]); err != nil {
			return bad("%v", err)
		}
	}
	if err := o.check(); err != nil {
		return bad("%v", err)
	}
	return o, nil
}

// redact removes what may be a secret that somebody has put where none belongs: all before
// an @, and parameters.
func redact(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		scheme, rest = "", address
	} else {
		scheme += "://"
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = "***@" + rest[i+1:]
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest = rest[:i+1] + "***"
	}
	return scheme + rest
}

func (o *Options) set(name, value string) error {
	var err error
	switch name {
	case "endpoint":
		o.Endpoint = value
	case "region":
		o.Region = value
	case "path-style":
		var pathStyle bool
		if pathStyle, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("path-style is %q, expected true or false", value)
		}
		o.PathStyle = &pathStyle
	case "profile":
		o.Profile = value
	case "checksum":
		o.Checksum = Checksum(value)
	case "timeout":
		if o.Timeout, err = time.ParseDuration(value); err != nil || o.Timeout <= 0 {
			return fmt.Errorf("timeout is %q, expected a duration such as 30s", value)
		}
	default:
		return fmt.Errorf("unknown parameter %q: there are endpoint, region, path-style, profile, checksum and timeout", name)
	}
	return nil
}

func (o *Options) check() error {
	if o.Bucket == "" {
		return fmt.Errorf("no bucket name")
	}
	if o.Prefix != "" {
		if err := blob.Key(o.Prefix).Valid(); err != nil {
			return fmt.Errorf("prefix: %w", err)
		}
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("endpoint is %q, expected http://host or https://host with an optional port", redact(o.Endpoint))
		}
	}
	switch o.Checksum {
	case "", ChecksumWhenRequired, ChecksumWhenSupported:
	default:
		return fmt.Errorf("checksum is %q, expected %s or %s", o.Checksum, ChecksumWhenRequired, ChecksumWhenSupported)
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.MaxAttempts <= 0 {
		o.MaxAttempts = defaultMaxAttempts
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// address names the bucket to people.
func (o Options) address() string {
	s := "s3://" + o.Bucket
	if o.Prefix != "" {
		s += "/" + o.Prefix
	}
	if o.Endpoint != "" {
		s += " at " + o.Endpoint
	}
	return s
}
