package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// CacheConfig is the answer to GET cache-config, and, with what is to stay left out,
// the body of PATCH.
type CacheConfig struct {
	Keypair               *Keypair         `json:"keypair,omitempty"` // PATCH only, never returned
	SubstituterEndpoint   *string          `json:"substituter_endpoint,omitempty"`
	APIEndpoint           *string          `json:"api_endpoint,omitempty"`
	PublicKey             *string          `json:"public_key,omitempty"`
	IsPublic              *bool            `json:"is_public,omitempty"`
	StoreDir              *string          `json:"store_dir,omitempty"`
	Priority              *int32           `json:"priority,omitempty"`
	UpstreamCacheKeyNames *[]string        `json:"upstream_cache_key_names,omitempty"`
	RetentionPeriod       *RetentionPeriod `json:"retention_period,omitempty"`
	Celler                *Capabilities    `json:"celler,omitempty"`
}

// Capabilities announces what this server can do beyond the Attic API. Others do
// not send it and ignore it.
type Capabilities struct {
	Version     int      `json:"version"`               // CapabilitiesVersion
	Permissions []string `json:"permissions,omitempty"` // the caller's on this cache, from version 2 on
	Delta       []int    `json:"delta,omitempty"`       // the versions of the delta protocol that it speaks
	Closures    bool     `json:"closures,omitempty"`    // it answers delta/{cache}/paths
}

// CapabilitiesVersion 1: Celler-Seq, the caches, paths and tokens calls. 2: pins, also
// in uploads; statistics; delete-paths. 3: what plain Nix uploads, logs of builds among it.
const CapabilitiesVersion = 3

// DecodeCacheConfig reads the body of PATCH. The endpoints and the public key are
// not the caller's to set and are not looked at.
func DecodeCacheConfig(body []byte) (CacheConfig, error) {
	f, err := parseFields(body)
	if err != nil {
		return CacheConfig{}, err
	}
	var c CacheConfig
	for _, err := range []error{
		optional(f, "keypair", &c.Keypair),
		optional(f, "is_public", &c.IsPublic),
		optional(f, "store_dir", &c.StoreDir),
		optional(f, "priority", &c.Priority),
		optional(f, "upstream_cache_key_names", &c.UpstreamCacheKeyNames),
		optional(f, "retention_period", &c.RetentionPeriod),
	} {
		if err != nil {
			return CacheConfig{}, err
		}
	}
	return c, nil
}

// CreateCacheRequest is the body of POST cache-config. All fields are required.
type CreateCacheRequest struct {
	Keypair               Keypair  `json:"keypair"`
	IsPublic              bool     `json:"is_public"`
	StoreDir              string   `json:"store_dir"`
	Priority              int32    `json:"priority"`
	UpstreamCacheKeyNames []string `json:"upstream_cache_key_names"`
}

// DecodeCreateCache reads the body of POST cache-config.
func DecodeCreateCache(body []byte) (CreateCacheRequest, error) {
	f, err := parseFields(body)
	if err != nil {
		return CreateCacheRequest{}, err
	}
	var c CreateCacheRequest
	for _, err := range []error{
		required(f, "keypair", &c.Keypair),
		required(f, "is_public", &c.IsPublic),
		required(f, "store_dir", &c.StoreDir),
		required(f, "priority", &c.Priority),
		required(f, "upstream_cache_key_names", &c.UpstreamCacheKeyNames),
	} {
		if err != nil {
			return CreateCacheRequest{}, err
		}
	}
	return c, nil
}

// Keypair says where a cache's signing key comes from: "Generate", or
// {"Keypair": "<name>:<base64>"}, the content of a Nix secret-key file.
type Keypair struct {
	Secret string // "" = let the server generate one
}

// MarshalJSON implements json.Marshaler.
func (k Keypair) MarshalJSON() ([]byte, error) {
	if k.Secret == "" {
		return []byte(`"Generate"`), nil
	}
	return json.Marshal(map[string]string{"Keypair": k.Secret})
}

// UnmarshalJSON implements json.Unmarshaler.
func (k *Keypair) UnmarshalJSON(raw []byte) error {
	var word string
	if json.Unmarshal(raw, &word) == nil {
		if word != "Generate" {
			return errors.New("expected \"Generate\" or {\"Keypair\": …}, found another word")
		}
		*k = Keypair{}
		return nil
	}
	f, err := parseFields(raw)
	if err != nil {
		return err
	}
	if len(f) != 1 {
		return errors.New("expected \"Generate\" or {\"Keypair\": …}")
	}
	if err := required(f, "Keypair", &k.Secret); err != nil {
		return err
	}
	if k.Secret == "" {
		return &ShapeError{Field: "Keypair", Err: errors.New("the key is empty")}
	}
	return nil
}

// RetentionPeriod is "Global", or {"Period": seconds}; 0 seconds turns expiry off.
type RetentionPeriod struct {
	Global bool
	Period uint32 // seconds
}

// MarshalJSON implements json.Marshaler.
func (p RetentionPeriod) MarshalJSON() ([]byte, error) {
	if p.Global {
		return []byte(`"Global"`), nil
	}
	return fmt.Appendf(nil, `{"Period":%d}`, p.Period), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *RetentionPeriod) UnmarshalJSON(raw []byte) error {
	var word string
	if json.Unmarshal(raw, &word) == nil {
		if word != "Global" {
			return errors.New("expected \"Global\" or {\"Period\": …}, found another word")
		}
		*p = RetentionPeriod{Global: true}
		return nil
	}
	f, err := parseFields(raw)
	if err != nil {
		return err
	}
	if len(f) != 1 {
		return errors.New("expected \"Global\" or {\"Period\": …}")
	}
	var seconds uint32
	if err := required(f, "Period", &seconds); err != nil {
		return err
	}
	*p = RetentionPeriod{Period: seconds}
	return nil
}

// MaxPeriod is the longest retention period a cache can have, in seconds.
const MaxPeriod = math.MaxInt32
