package client

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// missingBatch is how many hash parts go into one question: Attic's server refuses
// bodies over 2 MiB, which is about 59,900 of them.
const missingBatch = 50_000

// Path is what a server tells about a store path in a cache.
type Path struct {
	StorePath  string
	NarHash    string
	NarSize    int64
	FileSize   int64 // as served, compressed
	References []string
	Deriver    string
	System     string
	CA         string
	Sigs       []string
	CreatedBy  string
	Created    time.Time
}

// Paths lists a cache in the order of hash parts, asking for a page at a time. Only
// celler answers this.
func (c *Client) Paths(ctx context.Context, cache string) iter.Seq2[Path, error] {
	return func(yield func(Path, error) bool) {
		for after := ""; ; {
			var page wire.PathList
			if err := c.call(ctx, http.MethodGet, pathsPath(cache)+"?limit=1000&after="+url.QueryEscape(after), nil, &page); err != nil {
				yield(Path{}, err)
				return
			}
			for _, p := range page.Paths {
				if !yield(newPath(p), nil) {
					return
				}
			}
			if page.Next == "" || page.Next == after {
				return
			}
			after = page.Next
		}
	}
}

// Path returns one path of a cache, found by its hash part. Only celler answers this.
func (c *Client) Path(ctx context.Context, cache string, hashPart nix.HashPart) (Path, error) {
	var answer wire.PathInfo
	if err := c.call(ctx, http.MethodGet, pathsPath(cache)+"/"+hashPart.String(), nil, &answer); err != nil {
		return Path{}, err
	}
	return newPath(answer), nil
}

// DeletePath withdraws a path from a cache. Its chunks go when nothing needs them.
func (c *Client) DeletePath(ctx context.Context, cache string, hashPart nix.HashPart) error {
	return c.callDelete(ctx, pathsPath(cache)+"/"+hashPart.String())
}

// MissingPaths returns which of the hash parts a cache lacks.
func (c *Client) MissingPaths(ctx context.Context, cache string, hashParts []nix.HashPart) (map[nix.HashPart]bool, error) {
	missing := map[nix.HashPart]bool{}
	for len(hashParts) > 0 {
		n := min(len(hashParts), missingBatch)
		body := wire.MissingPathsRequest{Cache: cache, StorePathHashes: make([]string, 0, n)}
		for _, hashPart := range hashParts[:n] {
			body.StorePathHashes = append(body.StorePathHashes, hashPart.String())
		}
		var answer wire.MissingPathsResponse
		if err := c.call(ctx, http.MethodPost, "_api/v1/get-missing-paths", body, &answer); err != nil {
			return nil, err
		}
		for _, text := range answer.MissingPaths {
			hashPart, err := nix.ParseHashPart(text)
			if err != nil {
				return nil, fmt.Errorf("answer to get-missing-paths: %w", err)
			}
			missing[hashPart] = true
		}
		hashParts = hashParts[n:]
	}
	return missing, nil
}

func pathsPath(cache string) string { return "_api/v1/caches/" + url.PathEscape(cache) + "/paths" }

func newPath(p wire.PathInfo) Path {
	return Path{
		StorePath: p.StorePath, NarHash: p.NarHash, NarSize: p.NarSize, FileSize: p.FileSize, References: p.References,
		Deriver: p.Deriver, System: p.System, CA: p.CA, Sigs: p.Sigs, CreatedBy: p.CreatedBy, Created: p.Created,
	}
}

// TokenRule gives rights, spelt "pull", "push", "delete", "create-cache" and so on, on
// the caches that a pattern selects.
type TokenRule struct {
	Pattern     string
	Permissions []string
}

// Token is a fresh token.
type Token struct {
	Token   string
	ID      string
	Expires time.Time
}

// MintToken asks the server for a token with no more rights than the caller has. Only
// celler answers this.
func (c *Client) MintToken(ctx context.Context, subject string, validFor time.Duration, rules []TokenRule) (Token, error) {
	body := wire.TokenRequest{Subject: subject, ValidFor: int64(validFor / time.Second)}
	for _, r := range rules {
		body.Rules = append(body.Rules, wire.TokenRule(r))
	}
	var answer wire.TokenResponse
	if err := c.call(ctx, http.MethodPost, "_api/v1/tokens", body, &answer); err != nil {
		return Token{}, err
	}
	return Token(answer), nil
}

// ParseStorePath reports whether text spells a store path, of whatever store.
func ParseStorePath(text string) (string, bool) {
	p, err := nix.ParseStorePath(text)
	return p.String(), err == nil
}

// ParseHashPart finds the hash part in what a person types: a whole store path, its
// base name, or the hash part itself.
func ParseHashPart(text string) (nix.HashPart, error) {
	if p, err := nix.ParseStorePath(text); err == nil {
		return p.HashPart(), nil
	}
	if p, err := nix.ParseStorePathBase("/nix/store", text); err == nil {
		return p.HashPart(), nil
	}
	hashPart, err := nix.ParseHashPart(text)
	if err != nil {
		return hashPart, fmt.Errorf("%s is no store path and no hash part: %w", strconv.Quote(text), err)
	}
	return hashPart, nil
}
