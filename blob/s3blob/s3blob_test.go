package s3blob_test

import (
	"context"
	"crypto/rand"
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/s3blob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bucketName = "celler-test"

// server starts the S3 server whose binary the variable names.
func server(t testing.TB, variable string) (endpoint string) {
	t.Helper()
	binary := os.Getenv(variable)
	if binary == "" {
		t.Skipf("%s is not set: make test sets it (scripts/versitygw run)", variable)
	}
	return blobtest.Serve(t, binary, bucketName)
}

// open opens the test bucket on the server below a prefix of its own.
func open(t testing.TB, endpoint string) *s3blob.Bucket {
	t.Helper()
	return mustOpen(t, s3blob.Options{
		Bucket:          bucketName,
		Prefix:          "prefix/" + strings.ToLower(rand.Text()),
		Endpoint:        endpoint,
		Region:          "us-east-1",
		AccessKeyID:     blobtest.ServerAccessKey,
		SecretAccessKey: blobtest.ServerSecretKey,
	})
}

func mustOpen(t testing.TB, o s3blob.Options) *s3blob.Bucket {
	t.Helper()
	b, err := s3blob.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func TestBucketOnVersitygw(t *testing.T) {
	endpoint := server(t, "CELLER_TEST_VERSITYGW")
	blobtest.Run(t, func(t testing.TB) blob.Bucket { return open(t, endpoint) })
}

// TestBucketOnS3 runs against a bucket somewhere else, with the credentials of
// the environment. It writes below prefixes of its own and removes nothing.
func TestBucketOnS3(t *testing.T) {
	address := os.Getenv("CELLER_TEST_S3")
	if address == "" || strings.Contains(address, "127.0.0.1") {
		t.Skip("CELLER_TEST_S3 names no remote bucket: set it to s3://bucket?… to run against one")
	}
	o, err := s3blob.ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	prefix := o.Prefix
	blobtest.Run(t, func(t testing.TB) blob.Bucket {
		o := o
		o.Prefix = strings.TrimPrefix(prefix+"/celler-test-"+strings.ToLower(rand.Text()), "/")
		return mustOpen(t, o)
	})
}

// TestProbeRefusesRacyServer holds the probe to what it is for: versitygw 1.7.0
// checks conditions before it writes, without a lock.
func TestProbeRefusesRacyServer(t *testing.T) {
	endpoint := server(t, "CELLER_TEST_VERSITYGW_BAD")
	b := open(t, endpoint)
	findings, err := blob.Probe(t.Context(), b, blob.ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	verdict := blob.Verdict(findings)
	if verdict == nil {
		t.Fatal("the probe is satisfied with a server on which two creates can win")
	}
	t.Log(verdict)
	for _, f := range findings {
		if !f.OK && !strings.Contains(f.Hint, "--log-bucket") {
			t.Errorf("%s: the hint %q does not tell the way out", f.Check, f.Hint)
		}
	}
	for info, err := range b.List(t.Context(), "probe/", "") {
		t.Errorf("the probe left %s behind (%v)", info.Key, err)
	}
}

// TestNoConnectionIsLeft reads half of many streams and looks for what stays.
func TestNoConnectionIsLeft(t *testing.T) {
	endpoint := server(t, "CELLER_TEST_VERSITYGW")
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := open(t, endpoint)
	if _, err := b.Put(ctx, "pack/1", make([]byte, 8<<20)); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		r, err := b.GetRange(ctx, "pack/1", 0, 8<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
}

// roundTripper plays the server.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
