package wire

import (
	"encoding/json"
	"errors"
)

// UploadInfo says what the NAR in the body of an upload is. All texts are as they came:
// who decodes them parses them.
type UploadInfo struct {
	Cache         string   `json:"cache"`
	StorePathHash string   `json:"store_path_hash"` // the hash part
	StorePath     string   `json:"store_path"`
	References    []string `json:"references"` // base names
	System        *string  `json:"system"`
	Deriver       *string  `json:"deriver"`
	Sigs          []string `json:"sigs"`
	CA            *string  `json:"ca"`
	NarHash       string   `json:"nar_hash"` // "sha256:<hex>"; a server takes every spelling
	NarSize       int64    `json:"nar_size"`

	// Pin, if there, is set to this path in the very commit that brings it. Only celler
	// looks at it; see CapabilitiesVersion.
	Pin *PinRequest `json:"pin,omitempty"`
}

// DecodeUploadInfo reads an upload info.
func DecodeUploadInfo(body []byte) (UploadInfo, error) {
	f, err := parseFields(body)
	if err != nil {
		return UploadInfo{}, err
	}
	var u UploadInfo
	for _, err := range []error{
		required(f, "cache", &u.Cache),
		required(f, "store_path_hash", &u.StorePathHash),
		required(f, "store_path", &u.StorePath),
		required(f, "references", &u.References),
		optional(f, "system", &u.System),
		optional(f, "deriver", &u.Deriver),
		required(f, "sigs", &u.Sigs),
		optional(f, "ca", &u.CA),
		required(f, "nar_hash", &u.NarHash),
		required(f, "nar_size", &u.NarSize),
		optionalPin(f, &u.Pin),
	} {
		if err != nil {
			return UploadInfo{}, err
		}
	}
	return u, nil
}

// optionalPin reads the pin of an upload info.
func optionalPin(f fields, to **PinRequest) error {
	var raw *json.RawMessage
	if err := optional(f, "pin", &raw); err != nil || raw == nil {
		return err
	}
	g, err := parseFields(*raw)
	if err != nil {
		return &ShapeError{Field: "pin", Err: err}
	}
	var p PinRequest
	for _, err := range []error{required(g, "name", &p.Name), optional(g, "policy", &p.Policy), p.valid()} {
		if err != nil {
			return &ShapeError{Field: "pin", Err: err}
		}
	}
	if p.Name == "" {
		return &ShapeError{Field: "pin", Err: errors.New("the name is empty")}
	}
	*to = &p
	return nil
}

// The kinds of [UploadResult].
const (
	KindUploaded     = "Uploaded"
	KindDeduplicated = "Deduplicated"
)

// UploadResult is the answer to an upload. A client takes any kind and any body.
type UploadResult struct {
	Kind             string   `json:"kind"`
	FileSize         *int64   `json:"file_size,omitempty"`
	FracDeduplicated *float64 `json:"frac_deduplicated"` // of the plain bytes; null if the whole NAR was there
	Seq              uint64   `json:"celler_seq,omitempty"`
	Pin              *Pin     `json:"pin,omitempty"` // as it is now, if the upload set one
}
