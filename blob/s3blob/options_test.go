package s3blob_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob/s3blob"
)

func TestParseURL(t *testing.T) {
	yes, no := true, false
	ok := func(in string, want s3blob.Options) {
		t.Helper()
		got, err := s3blob.ParseURL(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			return
		}
		if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool {
			return p.Last().String() == ".WrapTransport" || p.Last().String() == ".Logger"
		}, cmp.Ignore())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
	}
	bad := func(in, why string) {
		t.Helper()
		if _, err := s3blob.ParseURL(in); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v, want an error with %q", in, err, why)
		}
	}

	ok("s3://bucket", s3blob.Options{Bucket: "bucket"})
	ok("s3://bucket/", s3blob.Options{Bucket: "bucket"})
	ok("s3://bucket/some/prefix/", s3blob.Options{Bucket: "bucket", Prefix: "some/prefix"})
	ok("s3://b?endpoint=http://127.0.0.1:9000&region=auto&path-style=true&profile=p&checksum=when-supported&timeout=5s", s3blob.Options{
		Bucket: "b", Endpoint: "http://127.0.0.1:9000", Region: "auto", PathStyle: &yes, Profile: "p",
		Checksum: s3blob.ChecksumWhenSupported, Timeout: 5 * time.Second,
	})
	ok("s3://b?endpoint=https%3A%2F%2Fs3.example.org&path-style=false", s3blob.Options{Bucket: "b", Endpoint: "https://s3.example.org", PathStyle: &no})

	bad("bucket", "s3://bucket")
	bad("http://bucket", `scheme "http"`)
	bad("s3://", "no bucket")
	bad("s3:///prefix", "no bucket")
	bad("s3://key:secret@bucket", "credentials")
	bad("s3://b#x", "fragment")
	bad("s3://b?region=x&region=y", "2 times")
	bad("s3://b?endpiont=http://x", `unknown parameter "endpiont"`)
	bad("s3://b?endpoint=localhost:9000", "expected http://host")
	bad("s3://b?endpoint=http://host/path", "expected http://host")
	bad("s3://b?endpoint=http://user:pw@host", "expected http://host")
	bad("s3://b?path-style=maybe", "path-style")
	bad("s3://b?checksum=crc", "checksum")
	bad("s3://b?timeout=5", "timeout")
	bad("s3://b?timeout=-5s", "timeout")
	bad("s3://b/a//b", "prefix")
	bad("s3://b/a%20b", "prefix")

	for _, address := range []string{
		"s3://key:hunter2@bucket", "s3://key:hunter2/a?b#c@bucket", "s3://key:%zzhunter2@bucket", "key:hunter2@bucket", "s3://b?secret-access-key=hunter2",
		"s3://b?region=x;hunter2", "s3://b?endpoint=http://key:hunter2@host", "s3://b?endpoint=http://host%3Fsig=hunter2", "s3://b?endpoint=http://host%23hunter2", "s3://b#hunter2",
	} {
		if _, err := s3blob.ParseURL(address); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: want an error that does not repeat the secret, got: %v", address, err)
		}
	}
}
