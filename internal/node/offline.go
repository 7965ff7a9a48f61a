package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/wal"
)

// InitResult says what Init found or made.
type InitResult struct {
	Store    string         `json:"store"`
	Profile  string         `json:"chunk_profile"`
	Version  int            `json:"format"`
	Created  time.Time      `json:"created"`
	Founded  bool           `json:"founded"` // false: it was founded already
	Findings []blob.Finding `json:"findings"`
}

// ProfileError reports a bucket that was founded with another chunk profile than the
// one asked for, which nothing can change.
type ProfileError struct{ Bucket, Have, Want string }

func (e *ProfileError) Error() string {
	return fmt.Sprintf("bucket %s was founded with chunk profile %s; it cannot become %s", e.Bucket, e.Have, e.Want)
}

// UnknownProfileError reports a chunk profile that does not exist.
type UnknownProfileError struct {
	Name string
	Err  error
}

func (e *UnknownProfileError) Error() string {
	return fmt.Sprintf("chunk profile %q: %v", e.Name, e.Err)
}

// Unwrap returns what is wrong with the name.
func (e *UnknownProfileError) Unwrap() error { return e.Err }

// Init probes the bucket in full and founds it with a chunk profile ("" for the
// default one). A bucket that has been founded with the same profile is left as it is.
func Init(ctx context.Context, b config.Buckets, profileName, version string, o blob.ProbeOptions) (InitResult, error) {
	profile, err := parseProfile(profileName)
	if err != nil {
		return InitResult{}, &UnknownProfileError{profileName, err}
	}
	if b.Default {
		if err := os.MkdirAll(filepath.Dir(b.LogBucket), 0o755); err != nil {
			return InitResult{}, fmt.Errorf("make a place for the bucket: %w", err)
		}
	}
	bucket, err := OpenBucket(ctx, b.LogBucket, b.S3, nil)
	if err != nil {
		return InitResult{}, err
	}
	out, err := initBucket(ctx, bucket, b.LogBucket, profile.Name, profileName, version, o)
	return out, errors.Join(err, closeBucket(bucket))
}

func initBucket(ctx context.Context, bucket blob.Bucket, name, profile, asked, version string, o blob.ProbeOptions) (InitResult, error) {
	var out InitResult
	var err error
	if out.Findings, err = blob.Probe(ctx, bucket, o); err != nil {
		return out, &ProbeError{name, err}
	}
	if err := verdict(name, out.Findings, true); err != nil {
		return out, err
	}
	f, founded, err := found(ctx, bucket, name, profile, "celler "+version)
	if err != nil {
		return out, err
	}
	out.Store, out.Profile, out.Version, out.Created, out.Founded = f.Store.String(), f.Profile, f.Version, f.Created, founded
	if asked != "" && f.Profile != profile {
		return out, &ProfileError{name, f.Profile, profile}
	}
	return out, nil
}

// MintToken makes a token that the servers of the bucket believe: with the configured
// key, or with the secret that the bucket keeps, for which the log is read into an
// index that is thrown away afterwards.
func MintToken(ctx context.Context, cfg config.Config, r TokenRequest, now func() time.Time) (string, error) {
	claims, err := r.claims(now())
	if err != nil {
		return "", err
	}
	key, err := offlineKey(ctx, cfg)
	if err != nil {
		return "", err
	}
	if !key.CanSign() {
		return "", &CannotMintError{cfg.Signing.From}
	}
	return auth.New(key, verifierOptions(cfg.JWT)).Mint(claims)
}

func offlineKey(ctx context.Context, cfg config.Config) (key auth.Key, err error) {
	if cfg.Signing.Kind != "" {
		return parseKey(cfg.Signing)
	}
	bucket, err := openExisting(ctx, cfg.LogBucket, cfg.S3)
	if err != nil {
		return key, err
	}
	defer func() { err = errors.Join(err, closeBucket(bucket)) }()
	format, err := wal.ReadFormat(ctx, bucket)
	if err != nil {
		return key, notFounded(err, cfg.LogBucket)
	}
	dir, err := os.MkdirTemp("", "celler-index-")
	if err != nil {
		return key, fmt.Errorf("make a directory for the index: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := index.Open(filepath.Join(dir, "index"), format.Store, index.Options{Bucket: bucket})
	if err != nil {
		return key, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	log, err := wal.Open(ctx, bucket, db, wal.Options{})
	if err != nil {
		return key, fmt.Errorf("open log in bucket %s: %w", cfg.LogBucket, err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	key, _, err = tokenKey(ctx, catalog.New(log, db, catalog.Options{}), config.Signing{})
	return key, err
}

func notFounded(err error, bucket string) error {
	if errors.Is(err, blob.ErrNotExist) {
		return &NotFoundedError{Bucket: bucket}
	}
	if err != nil {
		return fmt.Errorf("read format of bucket %s: %w", bucket, err)
	}
	return nil
}

// TokenInfo is what a token says of itself. Nobody has checked that it is true.
type TokenInfo struct {
	Algorithm string      `json:"algorithm"`
	Subject   string      `json:"subject,omitempty"`
	Issuer    string      `json:"issuer,omitempty"`
	Audiences []string    `json:"audiences,omitempty"`
	ID        string      `json:"id,omitempty"`
	NotBefore *time.Time  `json:"not_before,omitempty"`
	IssuedAt  *time.Time  `json:"issued_at,omitempty"`
	Expires   *time.Time  `json:"expires,omitempty"`
	Rules     []TokenRule `json:"rules"`
}

// TokenError reports a text that is no token of celler's or Attic's.
type TokenError struct{ Err error }

func (e *TokenError) Error() string { return "read token: " + e.Err.Error() }

// Unwrap returns what is wrong with it.
func (e *TokenError) Unwrap() error { return e.Err }

// InspectToken decodes a token without checking its signature.
func InspectToken(token string) (TokenInfo, error) {
	in, err := auth.Inspect(token)
	if err != nil {
		return TokenInfo{}, &TokenError{err}
	}
	c := in.Claims
	out := TokenInfo{
		Algorithm: in.Algorithm, Subject: c.Subject, Issuer: c.Issuer, Audiences: c.Audiences, ID: c.ID,
		NotBefore: when(c.NotBefore), IssuedAt: when(c.IssuedAt), Expires: when(c.Expires),
	}
	for _, r := range c.Rules {
		out.Rules = append(out.Rules, TokenRule{Pattern: string(r.Pattern), Rights: r.Permission.Names()})
	}
	return out, nil
}

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// CheckConfig checks what can be checked without a network: that a configured key can
// be used.
func CheckConfig(cfg config.Config) error {
	if cfg.Signing.Kind == "" {
		return nil
	}
	_, err := parseKey(cfg.Signing)
	return err
}
