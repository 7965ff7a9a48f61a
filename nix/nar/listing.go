package nar

import (
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// AppendListing reads a NAR and appends its listing, the JSON that binary caches
// keep beside a narinfo as "<hash part>.ls": a tree of types, sizes, and offsets
// of contents in the NAR. Names that are not UTF-8 cannot be written in JSON and
// are an error.
func AppendListing(dst []byte, r io.Reader) ([]byte, error) {
	nr := NewReader(r)
	l := Lister{dst: dst}
	for {
		h, err := nr.Next()
		if err == io.EOF {
			return l.Finish()
		}
		if err != nil {
			return dst, err
		}
		l.Entry(h)
	}
}

// A Lister makes a listing of the entries it is given in archive order; its
// Entry fits Verifier.OnEntry. The zero Lister is ready.
type Lister struct {
	dst   []byte
	depth int // of the innermost open directory, which is depth-1 names deep
	comma bool
	err   error
}

// Entry adds the next entry.
func (l *Lister) Entry(h *Header) {
	if l.err != nil {
		return
	}
	l.closeTo(h.Depth)
	if h.Depth == 0 {
		l.dst = append(l.dst, `{"version":1,"root":`...)
	} else {
		if l.comma {
			l.dst = append(l.dst, ',')
		}
		l.string(h.Name())
		l.dst = append(l.dst, ':')
	}
	switch h.Type {
	case Directory:
		l.dst = append(l.dst, `{"type":"directory","entries":{`...)
		l.depth, l.comma = h.Depth+1, false
		return
	case Symlink:
		l.dst = append(l.dst, `{"type":"symlink","target":`...)
		l.string(h.Target)
	case Regular:
		l.dst = append(l.dst, `{"type":"regular","size":`...)
		l.dst = strconv.AppendInt(l.dst, h.Size, 10)
		if h.Executable {
			l.dst = append(l.dst, `,"executable":true`...)
		}
		l.dst = append(l.dst, `,"narOffset":`...)
		l.dst = strconv.AppendInt(l.dst, h.ContentOffset, 10)
	}
	l.dst = append(l.dst, '}')
	l.comma = true
}

// Len is how long the listing is so far, for those who must bound it.
func (l *Lister) Len() int { return len(l.dst) }

// Finish closes the listing and returns it.
func (l *Lister) Finish() ([]byte, error) {
	if l.err != nil {
		return nil, l.err
	}
	l.closeTo(0)
	return append(l.dst, '}'), nil
}

// closeTo closes directories until entries depth names deep may follow.
func (l *Lister) closeTo(depth int) {
	for ; l.depth > depth; l.depth-- {
		l.dst = append(l.dst, "}}"...)
		l.comma = true
	}
}

func (l *Lister) string(s []byte) {
	if !utf8.Valid(s) {
		l.err = fmt.Errorf("list nar: %q is not UTF-8, which a listing cannot hold", s)
		return
	}
	const hex = "0123456789abcdef"
	l.dst = append(l.dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			l.dst = append(l.dst, '\\', c)
		case c < 0x20:
			l.dst = append(l.dst, `\u00`...)
			l.dst = append(l.dst, hex[c>>4], hex[c&15])
		default:
			l.dst = append(l.dst, c)
		}
	}
	l.dst = append(l.dst, '"')
}
