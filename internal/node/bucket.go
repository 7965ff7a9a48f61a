package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/fileblob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/internal/config"
)

// OpenBucket names the driver for a bucket's URL: a directory, file:///DIR, mem: or
// s3://NAME/PREFIX?….
func OpenBucket(ctx context.Context, text string, s3 config.S3Credentials, logger *slog.Logger) (blob.Bucket, error) {
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok || strings.ContainsAny(scheme, "/.") {
		return openDir(text, logger)
	}
	switch scheme {
	case "file":
		u, err := url.Parse(text)
		if err != nil || (u.Host != "" && u.Host != "localhost") || u.Path == "" {
			return nil, &config.ValueError{Key: "bucket", Value: text, Want: "file:///DIR"}
		}
		return openDir(u.Path, logger)
	case "mem":
		if rest != "" {
			return nil, &config.ValueError{Key: "bucket", Value: text, Want: "mem: and nothing behind"}
		}
		return memblob.New(), nil
	case "s3":
		return openS3(ctx, text, s3, logger)
	}
	return nil, &config.ValueError{Key: "bucket", Value: text, Want: "a directory, file:///DIR, mem: or s3://NAME"}
}

// openExisting is OpenBucket for verbs that look at a bucket: they must not make a
// directory of a mistyped name.
func openExisting(ctx context.Context, text string, s3 config.S3Credentials) (blob.Bucket, error) {
	dir := text
	if path, ok := strings.CutPrefix(text, "file://"); ok {
		dir = path
	}
	if !strings.Contains(dir, ":") {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, &NotFoundedError{Bucket: text, NoPlace: true}
		}
	}
	return OpenBucket(ctx, text, s3, nil)
}

func openDir(dir string, logger *slog.Logger) (blob.Bucket, error) {
	b, err := fileblob.Open(dir, fileblob.Options{Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", dir, err)
	}
	return b, nil
}

// closeBucket lets go of what a driver holds, if it holds anything.
func closeBucket(b blob.Bucket) error {
	if c, ok := b.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
