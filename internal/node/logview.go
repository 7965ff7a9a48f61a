package node

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// LogSegment is one segment of the log as a person reads it.
type LogSegment struct {
	Seq     uint64     `json:"seq"`
	Time    time.Time  `json:"time"`
	Writer  string     `json:"writer"`
	Batch   uint64     `json:"batch"`
	Prev    string     `json:"prev_digest"`
	Entries []LogEntry `json:"entries"`
}

// LogEntry is one effect: what happened to which row, and what the row then said.
// Secrets are never in it.
type LogEntry struct {
	Op     string         `json:"op"`              // set, delete, delete-range, op
	Row    string         `json:"row,omitempty"`   // cache, path, recipe, …
	Key    string         `json:"key"`             // the row's name; of an op, what it is called
	About  string         `json:"about,omitempty"` // of an op: the cache it concerns
	By     string         `json:"by,omitempty"`    // of an op: on whose behalf
	Fields map[string]any `json:"value,omitempty"` // what a set row says
	Text   string         `json:"-"`               // the same in one line, for people
}

func describeEntry(e wal.Entry) LogEntry {
	switch e.Kind {
	case wal.PushBoundary:
		name, about, by := e.Boundary()
		return LogEntry{Op: "op", Key: printable([]byte(name)), About: printable([]byte(about)), By: printable([]byte(by))}
	case wal.DeleteRange:
		name, _ := keyName(e.Key)
		end, _ := keyName(e.Value)
		return LogEntry{Op: "delete-range", Row: keyspace.Kind(e.Key), Key: name + " … " + end}
	case wal.Delete:
		name, _ := keyName(e.Key)
		return LogEntry{Op: "delete", Row: keyspace.Kind(e.Key), Key: name}
	case wal.Set:
	default:
		return LogEntry{Op: fmt.Sprintf("kind-%d", e.Kind), Key: printable(e.Key)}
	}
	out := LogEntry{Op: "set", Row: keyspace.Kind(e.Key)}
	var err error
	out.Key, err = keyName(e.Key)
	if err == nil {
		err = describeValue(&out, e.Key, e.Value)
	}
	if err != nil {
		out.Fields = map[string]any{"error": err.Error(), "hex": hex.EncodeToString(e.Value[:min(64, len(e.Value))])}
		out.Text = err.Error()
	}
	return out
}

// keyName spells out the key of a row; one that cannot be decoded is shown as it is.
func keyName(key []byte) (string, error) {
	if len(key) == 0 {
		return `""`, nil
	}
	switch key[0] {
	case keyspace.CachePrefix:
		return named(keyspace.DecodeCacheKey(key))(key)
	case keyspace.ChunkPrefix:
		return named(keyspace.DecodeChunkKey(key))(key)
	case keyspace.DestroyedPrefix:
		return named(keyspace.DecodeDestroyedKey(key))(key)
	case keyspace.PackPrefix:
		return named(keyspace.DecodePackKey(key))(key)
	case keyspace.SecretPrefix:
		return named(keyspace.DecodeSecretKey(key))(key)
	case keyspace.CounterPrefix:
		return named(keyspace.DecodeCounterKey(key))(key)
	case keyspace.CondemnedPrefix:
		return named(keyspace.DecodeCondemnedKey(key))(key)
	case keyspace.PathPrefix:
		cache, hashPart, err := keyspace.DecodePathKey(key)
		return named(fmt.Sprintf("cache %d %v", cache, hashPart), err)(key)
	case keyspace.RecipePrefix:
		k, err := keyspace.DecodeRecipeKey(key)
		text := hex.EncodeToString(k.NarHash[:])
		if k.Part > 0 {
			text += fmt.Sprintf(" part %d", k.Part)
		}
		return named(text, err)(key)
	}
	if name, ok := bookKeyName(key); ok {
		return name, nil
	}
	return printable(key), nil
}

// named turns what a decoder of keys returned into a name.
func named[T any](v T, err error) func(key []byte) (string, error) {
	return func(key []byte) (string, error) {
		if err != nil {
			return printable(key), err
		}
		return fmt.Sprint(v), nil
	}
}

// describeValue decodes the value of a row.
func describeValue(out *LogEntry, key, value []byte) error {
	switch key[0] {
	case keyspace.CachePrefix:
		return describeCache(out, key, value)
	case keyspace.PathPrefix:
		return describePath(out, key, value)
	case keyspace.ChunkPrefix:
		c, err := keyspace.DecodeChunk(key, value)
		out.fill(fmt.Sprintf("number %d of pack %v", c.Location.Index, c.Location.Pack),
			"pack", c.Location.Pack.String(), "index", c.Location.Index)
		return err
	case keyspace.PackPrefix:
		l, err := keyspace.DecodePack(key, value)
		out.fill(fmt.Sprintf("%d bytes, %d frames, %d chunks", l.Bytes, len(l.Frames), len(l.Sizes)),
			"bytes", l.Bytes, "frames", len(l.Frames), "chunks", len(l.Sizes))
		return err
	case keyspace.RecipePrefix:
		return describeRecipe(out, key, value)
	case keyspace.SecretPrefix:
		s, err := keyspace.DecodeSecret(key, value)
		out.fill(fmt.Sprintf("%d bytes, not shown", len(s.Value)), "bytes", len(s.Value), "created", s.Created.UTC())
		return err
	case keyspace.CounterPrefix:
		n, err := keyspace.DecodeCount(key, value)
		out.fill(fmt.Sprint(n), "count", n)
		return err
	case keyspace.DestroyedPrefix:
		d, err := keyspace.DecodeDestroyed(key, value)
		out.fill(fmt.Sprintf("was %q, destroyed at %s", d.Name, d.At.UTC().Format(time.RFC3339)), "name", string(d.Name), "at", d.At.UTC())
		return err
	case keyspace.CondemnedPrefix:
		c, err := keyspace.DecodeCondemned(key, value)
		out.fill(fmt.Sprintf("%d plain bytes in %d ranges", c.Bytes, len(c.Ranges)), "bytes", c.Bytes, "ranges", len(c.Ranges))
		return err
	}
	if ok, err := describeBooks(out, key, value); ok {
		return err
	}
	out.fill(printable(value), "hex", hex.EncodeToString(value))
	return nil
}

func describeCache(out *LogEntry, key, value []byte) error {
	c, err := keyspace.DecodeCache(key, value)
	if err != nil {
		return err
	}
	visible := "private"
	if c.Public {
		visible = "public"
	}
	retention := "server's default"
	if c.Retention != nil {
		retention = c.Retention.String()
	}
	keyName, _, _ := strings.Cut(c.SecretKey, ":")
	out.fill(fmt.Sprintf("id %d, %s, priority %d, store dir %s, key %s, retention %s", c.ID, visible, c.Priority, c.StoreDir, keyName, retention),
		"id", uint32(c.ID), "public", c.Public, "priority", c.Priority, "store_dir", string(c.StoreDir), "key_name", keyName,
		"upstream_key_names", c.UpstreamKeyNames, "retention", retention, "created", c.Created.UTC())
	return nil
}

func describePath(out *LogEntry, key, value []byte) error {
	p, err := keyspace.DecodePath(key, value)
	if err != nil {
		return err
	}
	by := ""
	if p.By != "" {
		by = ", by " + p.By
	}
	references := make([]string, 0, len(p.References))
	for _, r := range p.References {
		references = append(references, r.Base())
	}
	out.fill(fmt.Sprintf("%v, NAR %d bytes, served %d, %d references%s", p.StorePath, p.NarSize, p.FileSize, len(p.References), by),
		"store_path", p.StorePath.String(), "nar_hash", hex.EncodeToString(p.NarHash[:]), "nar_bytes", p.NarSize, "file_bytes", p.FileSize,
		"references", references, "deriver", p.Deriver, "ca", p.CA, "sig", p.Sig, "by", p.By, "created", p.Created.UTC())
	return nil
}

func describeRecipe(out *LogEntry, key, value []byte) error {
	k, err := keyspace.DecodeRecipeKey(key)
	if err != nil {
		return err
	}
	if k.Part > 0 {
		out.fill(fmt.Sprintf("%d bytes", len(value)), "bytes", len(value))
		return nil
	}
	h, err := keyspace.DecodeRecipeHead(value)
	out.fill(fmt.Sprintf("%d parts, served %d bytes, %d bytes of row", h.Parts, h.ServedSize, len(value)),
		"parts", h.Parts, "served_bytes", h.ServedSize, "bytes", len(value))
	return err
}

// fill sets the line for people and the fields, given as name, value, name, value.
func (e *LogEntry) fill(text string, fields ...any) {
	e.Text = text
	e.Fields = make(map[string]any, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		e.Fields[fields[i].(string)] = fields[i+1]
	}
}

// printable shows bytes as text where they are, else quoted.
func printable(b []byte) string {
	q := fmt.Sprintf("%q", b)
	if inner := q[1 : len(q)-1]; inner == string(b) {
		return inner
	}
	return q
}
