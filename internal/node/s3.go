package node

import (
	"context"
	"log/slog"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/s3blob"
	"github.com/celler/celler/internal/config"
)

// openS3 opens an S3 bucket. Credentials come from the SDK's chain, unless a file of
// Attic's has some.
func openS3(ctx context.Context, text string, keys config.S3Credentials, logger *slog.Logger) (blob.Bucket, error) {
	o, err := s3blob.ParseURL(text)
	if err != nil {
		return nil, &config.ValueError{Key: "bucket", Value: text, Want: "s3://NAME/PREFIX?region=…&endpoint=…: " + err.Error()}
	}
	o.Logger = logger
	if keys.AccessKeyID != "" {
		o.AccessKeyID, o.SecretAccessKey = keys.AccessKeyID, keys.SecretAccessKey
	}
	return s3blob.Open(ctx, o)
}
