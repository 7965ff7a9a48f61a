package wal

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/celler/celler/blob"
)

// FormatKey names the object that is written once, when a bucket is founded.
const FormatKey blob.Key = "FORMAT"

const (
	formatVersion = 1
	// protocolVersion is what ROOT's min_reader and min_writer are compared with.
	protocolVersion = 2
	// foundedVersion is what they are at first: see ExcludeEarlier.
	foundedVersion = 1
	// maxFormatBytes is far more than FORMAT has; what is larger is not ours.
	maxFormatBytes = 64 << 10
)

// Format is the content of FORMAT: what is fixed for ever when a bucket is
// founded. It is written as JSON.
type Format struct {
	Version int       `json:"v"`
	Store   StoreID   `json:"store"`
	Profile string    `json:"profile"` // how NARs are cut into chunks
	Created time.Time `json:"created"`
}

// Founding is what Found depends on besides the bucket. The zero value is right
// outside of a simulation.
type Founding struct {
	Env Env
	By  string // stands in ROOT, for people
}

// Found founds a bucket with the profile of f, or returns the Format of one that
// is founded already. Store and Created may be left zero.
//
// ROOT is written first, FORMAT last. So if there is a FORMAT there was a ROOT,
// and a bucket that has lost its ROOT is never mistaken for a fresh one. Any
// number of nodes may found one bucket at once: all of them return the same Format.
func Found(ctx context.Context, bucket blob.Bucket, f Format) (Format, error) {
	return Founding{}.Found(ctx, bucket, f)
}

// Found is the function of that name under another Env.
func (o Founding) Found(ctx context.Context, bucket blob.Bucket, f Format) (Format, error) {
	env := o.Env.withDefaults()
	have, err := ReadFormat(ctx, bucket)
	if !errors.Is(err, blob.ErrNotExist) {
		return have, err
	}
	if f.Store == (StoreID{}) {
		if _, err := io.ReadFull(env.Rand, f.Store[:]); err != nil {
			return Format{}, fmt.Errorf("draw a store id: %w", err)
		}
	}
	if f.Created.IsZero() {
		f.Created = env.Now().UTC().Truncate(time.Millisecond)
	}
	f.Version = formatVersion
	if err := f.check(); err != nil {
		return Format{}, err
	}
	root, err := foundRoot(ctx, bucket, env, f.Store, o.By)
	if err != nil {
		return Format{}, err
	}
	f.Store = root.Store // another founder may have been here first

	body, err := EncodeFormat(f)
	if err != nil {
		return Format{}, err
	}
	_, err = bucket.Create(ctx, FormatKey, body)
	if err == nil {
		return f, nil
	}
	// Occupied, or the outcome is unknown: what can be read now is what counts. A
	// request still under way finds the object occupied, or completes the founding.
	have, rerr := ReadFormat(ctx, bucket)
	if errors.Is(rerr, blob.ErrNotExist) {
		return Format{}, fmt.Errorf("create FORMAT: %w", err)
	}
	return have, rerr
}

// foundRoot creates the first ROOT, or returns the one that a founder left who
// did not get as far as FORMAT.
func foundRoot(ctx context.Context, bucket blob.Bucket, env Env, store StoreID, by string) (Root, error) {
	root := Root{
		Version: rootVersion, Store: store, Rev: 1,
		MinReader: foundedVersion, MinWriter: foundedVersion, Features: []string{featureZstd},
		By: by, At: env.Now().UTC().Truncate(time.Millisecond),
	}
	var err error
	if root.Nonce, err = nonce(env.Rand); err != nil {
		return Root{}, err
	}
	body, err := EncodeRoot(root)
	if err != nil {
		return Root{}, err
	}
	_, cerr := bucket.Create(ctx, RootKey, body)
	if cerr == nil {
		return root, nil
	}
	have, _, err := readRoot(ctx, bucket)
	if errors.Is(err, blob.ErrNotExist) {
		return Root{}, fmt.Errorf("create ROOT: %w", cerr)
	}
	if err != nil {
		return Root{}, err
	}
	// A log that has begun had a FORMAT. Writing another one might change the
	// profile under the chunks that exist.
	_, _, err = bucket.Get(ctx, Seq(1).Key())
	if have.Rev > 1 || err == nil {
		return Root{}, &CorruptError{Key: FormatKey, What: "object", Want: "to exist, because the log has begun", Got: "nothing"}
	}
	if !errors.Is(err, blob.ErrNotExist) {
		return Root{}, fmt.Errorf("look for the first segment: %w", err)
	}
	return have, nil
}

// ReadFormat returns the Format of a founded bucket. The error is
// blob.ErrNotExist if it is not founded, and a *TooNewError if a later celler
// founded it.
func ReadFormat(ctx context.Context, bucket blob.Bucket) (Format, error) {
	body, _, err := bucket.Get(ctx, FormatKey)
	if err != nil {
		return Format{}, fmt.Errorf("read FORMAT: %w", err)
	}
	f, err := DecodeFormat(body)
	if err != nil {
		return Format{}, named(FormatKey, err)
	}
	return f, nil
}

// DecodeFormat reads the content of FORMAT.
func DecodeFormat(src []byte) (Format, error) {
	var f Format
	if len(src) > maxFormatBytes {
		return f, corrupt(0, "size", fmt.Sprintf("at most %d bytes", maxFormatBytes), len(src))
	}
	var v struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(src, &v); err != nil {
		return f, corrupt(0, "content", "a JSON object", err)
	}
	if v.Version > formatVersion {
		return f, &TooNewError{What: "FORMAT version", Found: fmt.Sprint(v.Version), Known: fmt.Sprint(formatVersion)}
	}
	if err := checkSeal(src); err != nil {
		return f, err
	}
	if err := json.Unmarshal(src, &f); err != nil {
		return Format{}, corrupt(0, "content", "FORMAT's fields", err)
	}
	if err := f.check(); err != nil {
		return Format{}, err
	}
	return f, nil
}

// check reports fields that FORMAT cannot have.
func (f *Format) check() error {
	switch {
	case f.Version != formatVersion:
		return corrupt(0, "v", fmt.Sprint(formatVersion), f.Version)
	case f.Store == (StoreID{}):
		return corrupt(0, "store", "a store id", "zeros")
	case !regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`).MatchString(f.Profile):
		return corrupt(0, "profile", "the name of a cut profile", fmt.Sprintf("%.80q", f.Profile))
	}
	return nil
}

func nonce(rand io.Reader) (string, error) {
	var b [8]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("draw a nonce: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}
