package config

import (
	"net/url"
	"path/filepath"
	"strings"
)

// The parts of Attic's server.toml that celler does not share.
type (
	atticKeys struct {
		RequireProof *bool `toml:"require-proof-of-possession"`
		SoftDelete   bool  `toml:"soft-delete-caches"`
		OldSecret    any   `toml:"token-hs256-secret-base64"`
	}
	atticStorage struct {
		Type     string `toml:"type"`
		Path     string `toml:"path"`
		Region   string `toml:"region"`
		Bucket   string `toml:"bucket"`
		Endpoint string `toml:"endpoint"`

		Credentials struct {
			AccessKeyID     string `toml:"access_key_id"`
			SecretAccessKey string `toml:"secret_access_key"`
		} `toml:"credentials"`
	}
	atticChunking struct {
		NarSizeThreshold any `toml:"nar-size-threshold"`
		MinSize          any `toml:"min-size"`
		AvgSize          any `toml:"avg-size"`
		MaxSize          any `toml:"max-size"`
	}
	atticCompression struct {
		Type  string `toml:"type"`
		Level any    `toml:"level"`
	}
)

// atticPrefix is where celler's objects go in a place that Attic was configured with:
// beside Attic's own, which celler neither reads nor touches.
const atticPrefix = "celler"

// adopt takes over what means the same in celler, and says what does not.
func (f *File) adopt(s *schema) error {
	if s.RequireProof != nil && !*s.RequireProof {
		f.trustHashes = true
		f.note("require-proof-of-possession = false: who knows the hash of a NAR in any cache can have it")
	}
	if s.SoftDelete {
		f.note("soft-delete-caches is not needed: a destroyed cache can be restored while the log is kept (compact.log-retention), and its name is free at once")
	}
	if s.Database != nil {
		f.note("[database] is ignored: the log in the bucket takes its place")
	}
	if s.Chunking != nil {
		f.note("[chunking] is ignored: the bucket fixes how chunks are cut (celler init --chunk-profile)")
	}
	if c := s.Compression; c != nil && (c.Type != "zstd" || c.Level != nil) {
		f.note("[compression] is ignored: NARs are stored and served as zstd")
	}
	if s.Storage == nil {
		return nil
	}
	if s.Bucket != "" || s.LogBucket != "" || s.DataBucket != "" {
		f.note("[storage] is ignored, since a bucket is named beside it")
		return nil
	}
	bucket, err := s.Storage.url()
	if err != nil {
		err.Path = f.Path
		return err
	}
	f.bucket = bucket
	f.tree["bucket"] = bucket
	f.s3 = S3Credentials(s.Storage.Credentials)
	f.note("[storage]: celler keeps its objects under %q in it and leaves Attic's alone", atticPrefix+"/")
	return nil
}

// url is the bucket that [storage] describes.
func (s *atticStorage) url() (string, *FileError) {
	switch {
	case s.Type == "local" && s.Path != "":
		return filepath.Join(s.Path, atticPrefix), nil
	case s.Type == "local":
		return "", &FileError{Problem: `[storage] of type "local" has no path`}
	case s.Type != "s3":
		return "", &FileError{Problem: `[storage] has type "` + s.Type + `"; expected "local" or "s3"`}
	case s.Bucket == "" || s.Region == "":
		return "", &FileError{Problem: `[storage] of type "s3" needs both bucket and region`}
	}
	query := url.Values{"region": {s.Region}}
	if s.Endpoint != "" {
		query.Set("endpoint", strings.TrimRight(s.Endpoint, "/"))
		query.Set("path-style", "true")
	}
	u := url.URL{Scheme: "s3", Host: s.Bucket, Path: "/" + atticPrefix, RawQuery: query.Encode()}
	return u.String(), nil
}
