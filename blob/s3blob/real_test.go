package s3blob_test

import (
	"strings"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/s3blob"
)

// TestMistakesAreExplained makes the mistakes operators make, on a real server.
func TestMistakesAreExplained(t *testing.T) {
	endpoint := server(t, "CELLER_TEST_VERSITYGW")
	right := s3blob.Options{
		Bucket: bucketName, Endpoint: endpoint, Region: "us-east-1",
		AccessKeyID: blobtest.ServerAccessKey, SecretAccessKey: blobtest.ServerSecretKey, MaxAttempts: 1,
	}
	for _, c := range []struct {
		name    string
		mistake func(o *s3blob.Options)
		kind    blob.Kind
		hint    string
	}{
		{"no such bucket", func(o *s3blob.Options) { o.Bucket = "celler-other" }, blob.KindNoBucket, "create the bucket"},
		{"unknown key", func(o *s3blob.Options) { o.AccessKeyID = "nobody" }, blob.KindDenied, "AWS_ACCESS_KEY_ID"},
		{"wrong secret", func(o *s3blob.Options) { o.SecretAccessKey = "wrong" }, blob.KindDenied, "AWS_SECRET_ACCESS_KEY"},
		{"wrong region", func(o *s3blob.Options) { o.Region = "eu-west-1" }, blob.KindNoBucket, "region"},
		{"nothing listens", func(o *s3blob.Options) { o.Endpoint = "http://127.0.0.1:1" }, blob.KindUnreachable, "endpoint"},
		{"no such host", func(o *s3blob.Options) { o.Endpoint = "http://celler.invalid" }, blob.KindUnreachable, "celler.invalid"},
		{"not encrypted", func(o *s3blob.Options) { o.Endpoint = strings.Replace(endpoint, "http:", "https:", 1) }, blob.KindUnreachable, "http://"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := right
			c.mistake(&o)
			b := mustOpen(t, o)
			_, errCreate := b.Create(t.Context(), "log/1", []byte("x"))
			_, _, errGet := b.Get(t.Context(), "log/1")
			for _, err := range []error{errCreate, errGet} {
				if blob.KindOf(err) != c.kind || !strings.Contains(blob.HintOf(err), c.hint) {
					t.Errorf("got kind %v, hint %q: %v", blob.KindOf(err), blob.HintOf(err), err)
				}
				t.Logf("%v\nhint: %s", err, blob.HintOf(err))
			}
		})
	}
}
