package s3blob

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/celler/celler/blob"
)

const (
	dialTimeout     = 5 * time.Second
	tlsTimeout      = 10 * time.Second
	continueTimeout = time.Second // then the body is sent unasked
	idleTimeout     = 60 * time.Second
	// As many connections stay open as a busy node uses at once: opening one
	// costs several round trips.
	maxIdleConns = 64

	// Conditional writes of at least this many bytes ask before they send. A
	// shorter body travels with the headers and the server has it before it can
	// refuse; asking would cost each commit one more round trip.
	continueThreshold = 8 << 10
)

// Bucket is a blob.Bucket on an S3 server. Make one with Open.
type Bucket struct {
	client    *s3.Client
	transport *http.Transport
	o         Options
	prefix    string // ends in a slash unless empty
	name      string // for people

	// noBatch is set when the server has refused a DeleteObjects request as such.
	noBatch atomic.Bool
	// otherTags counts objects whose tags are not their MD5; see torn.
	otherTags atomic.Int32
}

var _ blob.Bucket = (*Bucket)(nil)

// Open makes a Bucket. It sends no request to the bucket itself, but may have to
// find out the region or fetch credentials.
//
// The caller must Close the bucket.
func Open(ctx context.Context, o Options) (*Bucket, error) {
	o = o.withDefaults()
	b := &Bucket{o: o, name: o.address()}
	if o.Prefix != "" {
		b.prefix = o.Prefix + "/"
	}
	if err := o.check(); err != nil {
		return nil, b.fail("open", "", err)
	}
	if err := b.open(ctx); err != nil {
		return nil, b.fail("open", "", err)
	}
	return b, nil
}

func (b *Bucket) open(ctx context.Context) error {
	cfg, err := b.load(ctx)
	if err != nil {
		return err
	}
	custom := b.o.Endpoint != ""
	// The endpoint may also come from the environment; only the client knows.
	if env := s3.NewFromConfig(cfg).Options().BaseEndpoint; env != nil && !custom {
		custom = true
		b.name += " at " + *env
	}
	if err := b.chooseRegion(ctx, &cfg, custom); err != nil {
		b.transport.CloseIdleConnections()
		return err
	}
	b.client = s3.NewFromConfig(cfg, func(so *s3.Options) {
		if b.o.Endpoint != "" {
			so.BaseEndpoint = &b.o.Endpoint
		}
		so.UsePathStyle = custom
		if b.o.PathStyle != nil {
			so.UsePathStyle = *b.o.PathStyle
		}
		so.ContinueHeaderThresholdBytes = -1
		so.DisableLogOutputChecksumValidationSkipped = true
		mode := b.o.Checksum
		if mode == "" && custom {
			mode = ChecksumWhenRequired
		}
		switch mode {
		case ChecksumWhenRequired:
			so.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			so.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		case ChecksumWhenSupported:
			so.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
			so.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
		}
	})
	return nil
}

// load runs the SDK's configuration chain and takes over its HTTP transport.
func (b *Bucket) load(ctx context.Context) (aws.Config, error) {
	// The chain wants a client of the SDK's own kind, to add AWS_CA_BUNDLE to it.
	client := awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.TLSHandshakeTimeout = tlsTimeout
			t.ResponseHeaderTimeout = b.o.Timeout
			t.ExpectContinueTimeout = continueTimeout
			t.IdleConnTimeout = idleTimeout
			t.MaxIdleConns = maxIdleConns
			t.MaxIdleConnsPerHost = maxIdleConns
		})
	logger := b.o.Logger
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		config.WithRetryMode(aws.RetryModeStandard),
		config.WithRetryMaxAttempts(b.o.MaxAttempts),
		config.WithLogger(logging.LoggerFunc(func(class logging.Classification, format string, args ...any) {
			logger.Debug("message from the S3 library", "status", string(class), "err", fmt.Sprintf(format, args...))
		})),
	}
	if b.o.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(b.o.Profile))
	}
	if b.o.Region != "" && b.o.Region != RegionAuto {
		options = append(options, config.WithRegion(b.o.Region))
	}
	if b.o.AccessKeyID != "" {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(b.o.AccessKeyID, b.o.SecretAccessKey, b.o.SessionToken)))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, err
	}
	if built, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		client = built
	}
	b.transport = client.GetTransport()
	var rt http.RoundTripper = &stallGuard{next: b.transport, patience: b.o.Timeout}
	rt = &holdBack{next: rt, wait: continueTimeout}
	if b.o.WrapTransport != nil {
		rt = b.o.WrapTransport(rt)
	}
	cfg.HTTPClient = &http.Client{
		Transport: rt,
		// A redirect means the wrong region or endpoint. Following it would hide that, at twice the latency.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return cfg, nil
}

// fallbackRegion is what S3 servers outside AWS expect if they care at all.
const fallbackRegion = "us-east-1"

// chooseRegion decides for a region if the configuration names none.
func (b *Bucket) chooseRegion(ctx context.Context, cfg *aws.Config, custom bool) error {
	switch {
	case cfg.Region != "" && b.o.Region != RegionAuto:
		return nil
	case custom:
		cfg.Region = fallbackRegion
		return nil
	}
	// S3 tells the region of any bucket to anybody, along with a refusal.
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://s3.amazonaws.com/"+b.o.Bucket, nil)
	if err != nil {
		return err
	}
	resp, err := cfg.HTTPClient.Do(req)
	if err != nil {
		return fmt.Errorf("find the region of the bucket (or give region=NAME): %w", err)
	}
	defer resp.Body.Close()
	if cfg.Region = resp.Header.Get("X-Amz-Bucket-Region"); cfg.Region == "" {
		if resp.StatusCode == http.StatusNotFound {
			return &statusError{code: "NoSuchBucket", status: resp.StatusCode}
		}
		return fmt.Errorf("find the region of the bucket: answer %s names none: give region=NAME", resp.Status)
	}
	return nil
}

// Close drops the connections that are idle. Calls under way finish, and then
// their connections are dropped after a while.
func (b *Bucket) Close() error {
	b.transport.CloseIdleConnections()
	return nil
}

// String returns the bucket's address without its parameters.
func (b *Bucket) String() string { return b.name }

// enter is what every call on keys begins with.
func (b *Bucket) enter(ctx context.Context, op string, keys ...blob.Key) error {
	for _, key := range keys {
		if err := key.Valid(); err != nil {
			return b.fail(op, key, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return b.fail(op, first(keys), err)
	}
	return nil
}

func first(keys []blob.Key) blob.Key {
	if len(keys) == 0 {
		return ""
	}
	return keys[0]
}

// object returns the name of key in the S3 bucket.
func (b *Bucket) object(key blob.Key) *string { return aws.String(b.prefix + string(key)) }

// deadline bounds a call of several attempts that sends n bytes in each.
func (b *Bucket) deadline(ctx context.Context, attempts int, n int) (context.Context, context.CancelFunc) {
	one := b.o.Timeout + time.Duration(n/minBytesPerSecond)*time.Second
	return context.WithTimeout(ctx, time.Duration(attempts)*one)
}
