package s3blob_test

import (
	"strings"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/s3blob"
)

// FuzzParseURL holds what is accepted to what Open relies on.
func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{
		"s3://bucket/some/prefix?endpoint=http://127.0.0.1:9000&region=auto&path-style=true&profile=p&checksum=when-required&timeout=5s",
		"s3://key:secret@bucket", "s3://", "s3://b?endpoint=%68ttp://x", "s3://b/..", "S3://b//",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		o, err := s3blob.ParseURL(address)
		if err != nil {
			return
		}
		if o.Bucket == "" || o.Timeout < 0 {
			t.Errorf("%q became %+v", address, o)
		}
		if o.Prefix != "" {
			if err := blob.Key(o.Prefix).Valid(); err != nil {
				t.Errorf("%q: prefix: %v", address, err)
			}
		}
		if o.Endpoint != "" && !strings.HasPrefix(strings.ToLower(o.Endpoint), "http") {
			t.Errorf("%q: endpoint %q", address, o.Endpoint)
		}
		if o.AccessKeyID != "" || o.SecretAccessKey != "" {
			t.Errorf("%q: credentials from an address", address)
		}
		if again, err := s3blob.ParseURL(address); err != nil || again.Prefix != o.Prefix || again.Endpoint != o.Endpoint {
			t.Errorf("%q: two answers: %+v, %+v", address, o, again)
		}
	})
}
