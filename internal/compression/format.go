package compression

import (
	"bytes"
	"strings"
)

// Format is a way to compress.
type Format uint8

// The formats. None is data as they are.
const (
	None Format = iota
	Xz
	Zstd
	Bzip2
	Gzip
	Brotli
	Lz4
)

// formats are their names in a narinfo and in a Content-Encoding, and how the name of a
// file ends that is in them. Nix writes gzip files without an ending.
func formats() []struct{ name, suffix string } {
	return []struct{ name, suffix string }{
		None: {"none", ""}, Xz: {"xz", ".xz"}, Zstd: {"zstd", ".zst"}, Bzip2: {"bzip2", ".bz2"}, Gzip: {"gzip", ".gz"}, Brotli: {"br", ".br"}, Lz4: {"lz4", ".lz4"},
	}
}

// String returns the name in a narinfo.
func (f Format) String() string {
	if all := formats(); int(f) < len(all) {
		return all[f].name
	}
	return "unknown"
}

// Parse accepts the name of a format.
func Parse(name string) (Format, bool) {
	for f, v := range formats() {
		if v.name == name {
			return Format(f), true
		}
	}
	return None, false
}

// CutSuffix takes the ending of a format off the name of a file. If there is none of those
// known, the format is for [Detect] to find out.
func CutSuffix(file string) (base string, f Format, found bool) {
	for f, v := range formats() {
		if base, ok := strings.CutSuffix(file, v.suffix); ok && v.suffix != "" {
			return base, Format(f), true
		}
	}
	return file, None, false
}

// DetectBytes is how many bytes Detect likes to see.
const DetectBytes = 8

// Detect tells a format by how the data begin; None if it is none that can be told, as
// brotli cannot. known is false for a format that begins like none of ours but is one.
func Detect(begin []byte) (f Format, known bool) {
	for _, v := range []struct {
		magic string
		f     Format
		known bool
	}{
		{"\xfd7zXZ\x00", Xz, true},
		{"\x28\xb5\x2f\xfd", Zstd, true},
		{"BZh", Bzip2, true},
		{"\x1f\x8b", Gzip, true},
		{lz4Beginning, Lz4, true},
		{"LZIP", None, false},
		{"\x1f\x9d", None, false},     // compress
		{"\x5d\x00\x00", None, false}, // lzma
	} {
		if bytes.HasPrefix(begin, []byte(v.magic)) {
			return v.f, v.known
		}
	}
	return None, true
}
