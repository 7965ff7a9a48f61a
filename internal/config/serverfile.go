package config

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/pelletier/go-toml/v2"
)

// File is a server configuration that was read and found free of unknown keys. It is
// a kong.Resolver: what neither flag nor variable has set is taken from it.
type File struct {
	Path    string
	Notices []string // what a person should know about how it was understood

	env     Env
	tree    map[string]any
	signing *signingKeys
	bucket  string // from [storage]
	s3      S3Credentials

	trustHashes bool // from require-proof-of-possession
}

// LoadFile reads the server's configuration: the file at path if one is named; else the
// TOML that CELLER_SERVER_CONFIG_BASE64 or ATTIC_SERVER_CONFIG_BASE64 holds; else
// server.toml in celler's or Attic's configuration directory. None at all is no error
// and gives nil.
func LoadFile(env Env, path string) (*File, error) {
	if path != "" {
		body, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		return parseFile(env, path, body)
	}
	if text, name := env.first("CELLER_SERVER_CONFIG_BASE64", "ATTIC_SERVER_CONFIG_BASE64"); text != "" {
		body, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			return nil, &FileError{Path: "$" + name, Problem: "not base64: " + err.Error()}
		}
		return parseFile(env, "$"+name, body)
	}
	for _, app := range []string{"celler", "attic"} {
		path := filepath.Join(env.configHome(), app, "server.toml")
		body, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		f, err := parseFile(env, path, body)
		if f != nil && app == "attic" {
			f.note("configuration is Attic's, %s", path)
		}
		return f, err
	}
	return nil, nil
}

// schema is the file: celler's own keys, and the sections of Attic's.
type schema struct {
	Config

	atticKeys
	Database    map[string]any    `toml:"database"`
	Storage     *atticStorage     `toml:"storage"`
	Chunking    *atticChunking    `toml:"chunking"`
	Compression *atticCompression `toml:"compression"`
}

func parseFile(env Env, path string, body []byte) (*File, error) {
	f := &File{Path: path, env: env}
	var s schema
	d := toml.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(&s)
	if missing, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		err = f.tolerate(missing)
		if err == nil {
			err = toml.Unmarshal(body, &s)
		}
	}
	if err != nil {
		return nil, newFileError(path, err)
	}
	if s.OldSecret != nil {
		return nil, &FileError{Path: path, Problem: `"token-hs256-secret-base64" stands at the top level; move it into a section [jwt.signing]`}
	}
	if err := toml.Unmarshal(body, &f.tree); err != nil {
		return nil, newFileError(path, err)
	}
	f.signing = s.JWT.File
	if err := f.adopt(&s); err != nil {
		return nil, err
	}
	return f, nil
}

// tolerate passes over unknown keys within the sections that are Attic's, where Attic
// itself passes over them; any other unknown key is an error.
func (f *File) tolerate(missing *toml.StrictMissingError) error {
	attic := []string{"storage", "chunking", "compression", "garbage-collection", "database", "jwt"}
	var bad []toml.DecodeError
	for _, e := range missing.Errors {
		if key := e.Key(); len(key) > 1 && slices.Contains(attic, key[0]) {
			f.note("unknown key %q is ignored", keyText(key))
			continue
		}
		bad = append(bad, e)
	}
	if len(bad) == 0 {
		return nil
	}
	return &toml.StrictMissingError{Errors: bad}
}

func (f *File) note(format string, args ...any) {
	f.Notices = append(f.Notices, fmt.Sprintf(format, args...))
}

// Validate is part of kong.Resolver; the file was checked when it was read.
func (f *File) Validate(*kong.Application) error { return nil }

// Resolve gives the value for a flag: a dot in its name goes down into a section.
func (f *File) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, set := f.env.lookup(name); set {
			return nil, nil
		}
	}
	var v any = f.tree
	for part := range strings.SplitSeq(flag.Name, ".") {
		section, ok := v.(map[string]any)
		if !ok {
			return nil, nil
		}
		if v, ok = section[part]; !ok {
			return nil, nil
		}
	}
	if list, ok := v.([]any); ok {
		var words []string
		for _, word := range list {
			words = append(words, fmt.Sprint(word))
		}
		return kong.JoinEscaped(words, ','), nil
	}
	if _, ok := v.(map[string]any); ok {
		return nil, nil
	}
	return fmt.Sprint(v), nil
}
