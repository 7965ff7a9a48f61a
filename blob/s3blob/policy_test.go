package s3blob_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/s3blob"
)

const writer = "writer"

// documentedPolicy returns the policy of docs/buckets.md as a bucket policy for
// the writer.
func documentedPolicy(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/buckets.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```json\n")
	text, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/buckets.md holds no policy")
	}
	var policy struct {
		Version   string
		Statement []map[string]any
	}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(text, "NAME", bucketName)), &policy); err != nil {
		t.Fatal(err)
	}
	for _, s := range policy.Statement {
		s["Principal"] = map[string]any{"AWS": []string{writer}}
	}
	out, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestDocumentedPolicy gives a writer the rights that docs/buckets.md tells
// operators to give, and no others.
func TestDocumentedPolicy(t *testing.T) {
	binary := os.Getenv("CELLER_TEST_VERSITYGW")
	if binary == "" {
		t.Skip("CELLER_TEST_VERSITYGW is not set: make test sets it (scripts/versitygw run)")
	}
	users := t.TempDir()
	account := `{"accessAccounts":{"writer":{"access":"writer","secret":"writersecret","role":"user"}}}`
	if err := os.WriteFile(filepath.Join(users, "users.json"), []byte(account), 0o600); err != nil {
		t.Fatal(err)
	}
	endpoint := blobtest.ServeWith(t, binary, []string{"--iam-dir", users}, bucketName)
	ctx := t.Context()

	b := mustOpen(t, s3blob.Options{
		Bucket: bucketName, Endpoint: endpoint, Region: "us-east-1", AccessKeyID: writer, SecretAccessKey: "writersecret",
	})
	if _, err := b.Create(ctx, "log/0", nil); blob.KindOf(err) != blob.KindDenied {
		t.Fatalf("before the policy: %v, want denied", err)
	}
	admin := s3.New(s3.Options{
		BaseEndpoint: &endpoint, UsePathStyle: true, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(blobtest.ServerAccessKey, blobtest.ServerSecretKey, ""),
	})
	if _, err := admin.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: aws.String(bucketName), Policy: aws.String(documentedPolicy(t))}); err != nil {
		t.Fatal(err)
	}

	for _, o := range []blob.ProbeOptions{{Short: true}, {Rounds: 2, Racers: 4}} {
		findings, err := blob.Probe(ctx, b, o)
		if err = errors.Join(err, blob.Verdict(findings)); err != nil {
			t.Error(err)
		}
	}
	for info, err := range b.List(ctx, "", "") {
		t.Errorf("the probe left %s (%v)", info.Key, err)
	}
	tag, err := b.Create(ctx, "ROOT", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Swap(ctx, "ROOT", tag, []byte("2")); err != nil {
		t.Error(err)
	}
	if err := b.Delete(ctx, "ROOT"); blob.KindOf(err) != blob.KindDenied {
		t.Errorf("delete of ROOT: %v, want denied", err)
	}
	if err := b.Delete(ctx, "ROOT", "log/1"); blob.KindOf(err) != blob.KindDenied {
		t.Errorf("delete of ROOT in a batch: %v, want denied", err)
	}
	if body, _, err := b.Get(ctx, "ROOT"); err != nil || string(body) != "2" {
		t.Errorf("ROOT is %q (%v) after deletes that were denied", body, err)
	}
}
