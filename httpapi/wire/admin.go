package wire

import "time"

// CacheList is the answer to GET caches: those the caller may discover, by name.
type CacheList struct {
	Caches []CacheSummary `json:"caches"`
}

// CacheSummary is one cache and what the caller may do with it.
type CacheSummary struct {
	Name        string    `json:"name"`
	IsPublic    bool      `json:"is_public"`
	StoreDir    string    `json:"store_dir"`
	Priority    int32     `json:"priority"`
	PublicKey   string    `json:"public_key"`
	Created     time.Time `json:"created"`
	Permissions []string  `json:"permissions"` // "pull", "push", …
}

// PathList is one page of a cache's store paths in the order of their hash parts.
type PathList struct {
	Paths []PathInfo `json:"paths"`
	Next  string     `json:"next,omitempty"` // pass as ?after= for the next page; "" on the last
}

// PathInfo is one store path in one cache.
type PathInfo struct {
	StorePath  string    `json:"store_path"`
	HashPart   string    `json:"store_path_hash"`
	NarHash    string    `json:"nar_hash"`
	NarSize    int64     `json:"nar_size"`
	FileSize   int64     `json:"file_size"`
	References []string  `json:"references"`
	Deriver    string    `json:"deriver,omitempty"`
	System     string    `json:"system,omitempty"`
	CA         string    `json:"ca,omitempty"`
	Sigs       []string  `json:"sigs"`
	CreatedBy  string    `json:"created_by,omitempty"`
	Created    time.Time `json:"created"`
}

// TokenRequest asks for a token. Its rules keep their order.
type TokenRequest struct {
	Subject  string      `json:"subject"`
	ValidFor int64       `json:"valid_for"` // seconds
	Rules    []TokenRule `json:"rules"`
}

// TokenRule gives rights, spelt "pull", "push", …, on the caches a pattern selects.
type TokenRule struct {
	Pattern     string   `json:"pattern"`
	Permissions []string `json:"permissions"`
}

// DecodeTokenRequest reads a [TokenRequest].
func DecodeTokenRequest(body []byte) (TokenRequest, error) {
	f, err := parseFields(body)
	if err != nil {
		return TokenRequest{}, err
	}
	var t TokenRequest
	for _, err := range []error{
		required(f, "subject", &t.Subject),
		required(f, "valid_for", &t.ValidFor),
		required(f, "rules", &t.Rules),
	} {
		if err != nil {
			return TokenRequest{}, err
		}
	}
	return t, nil
}

// TokenResponse is a fresh token.
type TokenResponse struct {
	Token   string    `json:"token"`
	ID      string    `json:"id"` // its "jti"
	Expires time.Time `json:"expires"`
}

// Readiness is the body of GET /readyz.
type Readiness struct {
	Ready            bool    `json:"ready"`
	Reason           string  `json:"reason,omitempty"`
	Past             string  `json:"past,omitempty"` // set by a server that shows the past
	Seq              uint64  `json:"seq"`
	StalenessSeconds float64 `json:"staleness_seconds"`
}
