package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
)

// SyntaxError reports text that is not JSON.
type SyntaxError struct{ Err error }

func (e *SyntaxError) Error() string { return "parse JSON: " + e.Err.Error() }
func (e *SyntaxError) Unwrap() error { return e.Err }

// ShapeError reports JSON that is not what was asked for: a field is missing, or of
// the wrong type, or has a value it cannot have.
type ShapeError struct {
	Field string // "" for the body as a whole
	Err   error
}

func (e *ShapeError) Error() string {
	if e.Field == "" {
		return "read JSON: " + e.Err.Error()
	}
	return fmt.Sprintf("read JSON: %s: %v", e.Field, e.Err)
}
func (e *ShapeError) Unwrap() error { return e.Err }

var errMissing = errors.New("the field is missing")

// fields is one JSON object, its keys in their exact spelling.
type fields map[string]json.RawMessage

// parseFields splits an object. encoding/json alone would match keys in any case.
func parseFields(body []byte) (fields, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	var f fields
	if err := dec.Decode(&f); err != nil {
		if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return nil, &ShapeError{Err: errors.New("expected an object")}
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, &SyntaxError{Err: err}
	}
	if f == nil {
		return nil, &ShapeError{Err: errors.New("expected an object, found null")}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &SyntaxError{Err: errors.New("unexpected data after the object")}
	}
	return f, nil
}

// required decodes a field that must be there; optional one that may be absent or null.
func required[T any](f fields, key string, to *T) error {
	raw, ok := f[key]
	if !ok || string(raw) == "null" {
		return &ShapeError{Field: key, Err: errMissing}
	}
	return decodeField(raw, key, to)
}

func optional[T any](f fields, key string, to **T) error {
	raw, ok := f[key]
	if !ok || string(raw) == "null" {
		return nil
	}
	v := new(T)
	if err := decodeField(raw, key, v); err != nil {
		return err
	}
	*to = v
	return nil
}

func decodeField(raw json.RawMessage, key string, to any) error {
	if err := json.Unmarshal(raw, to); err != nil {
		if shape, ok := errors.AsType[*ShapeError](err); ok && shape.Field == "" {
			err = shape.Err
		}
		return &ShapeError{Field: key, Err: mistyped(err)}
	}
	return nil
}

// mistyped says for people what encoding/json says of Go's types.
func mistyped(err error) error {
	e, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok || e.Type == nil {
		return err
	}
	want := "an object"
	switch kind := e.Type.Kind(); {
	case kind == reflect.String:
		want = "text"
	case kind == reflect.Bool:
		want = "true or false"
	case kind == reflect.Slice || kind == reflect.Array:
		want = "a list"
	case kind >= reflect.Int && kind <= reflect.Uintptr:
		want = fmt.Sprintf("a whole number of at most %d bits", e.Type.Bits())
	case kind == reflect.Float32 || kind == reflect.Float64:
		want = "a number"
	}
	if e.Field != "" {
		return fmt.Errorf("%s: expected %s, found %s", e.Field, want, e.Value)
	}
	return fmt.Errorf("expected %s, found %s", want, e.Value)
}
