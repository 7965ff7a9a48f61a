package nar

import (
	"bytes"
	"fmt"
	"io"
)

// state is what the grammar expects next.
type state uint8

const (
	wantMagic state = iota
	wantNodeOpen
	wantTypeTag
	wantType
	wantRegularTag
	wantExecutableValue
	wantContentsTag
	wantContents
	wantNodeClose
	wantTargetTag
	wantTarget
	wantDirectoryTag
	wantEntryOpen
	wantNameTag
	wantName
	wantNodeTag
	wantEntryClose
	wantEnd
)

func (s state) String() string {
	switch s {
	case wantMagic:
		return `"` + Magic + `"`
	case wantNodeOpen, wantEntryOpen:
		return `"("`
	case wantTypeTag:
		return `"type"`
	case wantType:
		return `"regular", "directory" or "symlink"`
	case wantRegularTag:
		return `"executable" or "contents"`
	case wantExecutableValue:
		return `""`
	case wantContentsTag:
		return `"contents"`
	case wantContents:
		return "the contents of a file"
	case wantNodeClose, wantEntryClose:
		return `")"`
	case wantTargetTag:
		return `"target"`
	case wantTarget:
		return "a symlink target of 1 to 4095 bytes without NUL"
	case wantDirectoryTag:
		return `"entry" or ")"`
	case wantNameTag:
		return `"name"`
	case wantName:
		return `a file name of 1 to 255 bytes without "/" and NUL, not "." or ".."`
	case wantNodeTag:
		return `"node"`
	case wantEnd:
		return "the end"
	}
	return "nothing"
}

// maxTag bounds the strings of the grammar itself; the longest is Magic.
const maxTag = 16

// A parser is the grammar of NARs as a machine that is fed one string at a time.
// It does no I/O and knows nothing about lengths and padding: that is left to
// the front ends, which must ask limit before they collect a string and must
// call contents instead of token in state wantContents.
type parser struct {
	state  state
	hdr    Header
	path   []byte  // of the current entry; Header.Path is a prefix view of it
	levels []level // the open directories, outermost first
	target []byte
	sum    Summary
}

// A level is one open directory. While the directory waits for its next entry,
// path[start:] is the name of the last one, which the next must exceed.
type level struct {
	start int // where in path the names of this directory begin
	any   bool
}

func (p *parser) reset() {
	*p = parser{path: p.path[:0], levels: p.levels[:0], target: p.target[:0]}
}

// limit is the length of the longest string acceptable now.
func (p *parser) limit() int64 {
	switch p.state {
	case wantName:
		return MaxName
	case wantTarget:
		return MaxTarget
	case wantContents:
		return maxContents
	}
	return maxTag
}

// fail describes a string at offset that cannot be accepted.
func (p *parser) fail(offset int64, found string) error {
	return &SyntaxError{Offset: offset, Path: p.where(), Expected: p.state.String(), Found: found}
}

// end describes the end of the input at offset.
func (p *parser) end(offset int64) error {
	return &SyntaxError{
		Offset: offset, Path: p.where(), Expected: p.state.String(),
		Found: "the end of the input", Err: io.ErrUnexpectedEOF,
	}
}

func (p *parser) badPadding(offset int64) error {
	return &SyntaxError{Offset: offset, Path: p.where(), Expected: "padding of zeros", Found: "other bytes"}
}

func (p *parser) endPadding(offset int64) error {
	return &SyntaxError{
		Offset: offset, Path: p.where(), Expected: "padding of zeros",
		Found: "the end of the input", Err: io.ErrUnexpectedEOF,
	}
}

func (p *parser) tooLong(offset int64, n uint64) error {
	return p.fail(offset, fmt.Sprintf("a string of %d bytes", n))
}

func (p *parser) where() string { return string(p.path) }

// token consumes one string, read at offset. It reports whether p.hdr now
// describes a new entry.
func (p *parser) token(offset int64, tok []byte) (entry bool, err error) {
	next := p.state
	switch p.state {
	case wantMagic:
		if string(tok) == Magic {
			next = wantNodeOpen
		}
	case wantNodeOpen:
		if string(tok) == "(" {
			next = wantTypeTag
		}
	case wantTypeTag:
		if string(tok) == "type" {
			next = wantType
		}
	case wantType:
		return p.open(offset, tok)
	case wantRegularTag:
		switch string(tok) {
		case "contents":
			next = wantContents
		case "executable":
			p.hdr.Executable = true
			next = wantExecutableValue
		}
	case wantExecutableValue:
		if len(tok) == 0 {
			next = wantContentsTag
		}
	case wantContentsTag:
		if string(tok) == "contents" {
			next = wantContents
		}
	case wantNodeClose:
		if string(tok) == ")" {
			p.closeNode()
			return false, nil
		}
	case wantTargetTag:
		if string(tok) == "target" {
			next = wantTarget
		}
	case wantTarget:
		return p.setTarget(offset, tok)
	case wantDirectoryTag:
		switch string(tok) {
		case "entry":
			next = wantEntryOpen
		case ")":
			p.closeDirectory()
			return false, nil
		}
	case wantEntryOpen:
		if string(tok) == "(" {
			next = wantNameTag
		}
	case wantNameTag:
		if string(tok) == "name" {
			next = wantName
		}
	case wantName:
		return false, p.setName(offset, tok)
	case wantNodeTag:
		if string(tok) == "node" {
			next = wantNodeOpen
		}
	case wantEntryClose:
		if string(tok) == ")" {
			next = wantDirectoryTag
		}
	}
	if next == p.state {
		return false, p.fail(offset, fmt.Sprintf("%q", tok))
	}
	p.state = next
	return false, nil
}

// open begins a node of the type that tok names.
func (p *parser) open(offset int64, tok []byte) (entry bool, err error) {
	p.hdr = Header{Path: p.path, Depth: len(p.levels)}
	switch string(tok) {
	case "regular":
		p.hdr.Type = Regular
		p.state = wantRegularTag
		return false, nil
	case "symlink":
		p.hdr.Type = Symlink
		p.state = wantTargetTag
		return false, nil
	case "directory":
		if len(p.levels) == MaxDepth {
			return false, &SyntaxError{
				Offset: offset, Path: p.where(),
				Expected: fmt.Sprintf("at most %d nested directories", MaxDepth), Found: "one more",
			}
		}
		start := len(p.path)
		if len(p.levels) > 0 {
			start++ // the slash
		}
		p.levels = append(p.levels, level{start: start})
		p.hdr.Type = Directory
		p.sum.Directories++
		p.state = wantDirectoryTag
		return true, nil
	}
	return false, p.fail(offset, fmt.Sprintf("%q", tok))
}

// contents begins the contents of a regular file: n bytes from offset on. The
// front end passes them by and calls contentsDone.
func (p *parser) contents(offset, n int64) {
	p.hdr.Size, p.hdr.ContentOffset = n, offset
	p.sum.Files++
	p.sum.Contents += n
}

func (p *parser) contentsDone() { p.state = wantNodeClose }

func (p *parser) setTarget(offset int64, tok []byte) (entry bool, err error) {
	if len(tok) == 0 || bytes.IndexByte(tok, 0) >= 0 {
		return false, p.fail(offset, fmt.Sprintf("%q", tok))
	}
	p.target = append(p.target[:0], tok...)
	p.hdr.Target = p.target
	p.sum.Symlinks++
	p.state = wantNodeClose
	return true, nil
}

func (p *parser) setName(offset int64, tok []byte) error {
	if err := checkName(tok); err != nil {
		return p.fail(offset, err.Error())
	}
	l := &p.levels[len(p.levels)-1]
	if l.any {
		if last := p.path[l.start:]; bytes.Compare(tok, last) <= 0 {
			return &SyntaxError{
				Offset: offset, Path: p.where(),
				Expected: fmt.Sprintf("a name that sorts after %q", last), Found: fmt.Sprintf("%q", tok),
			}
		}
	}
	l.any = true
	if l.start == 0 {
		p.path = append(p.path[:0], tok...)
	} else {
		p.path = append(p.path[:l.start-1], '/')
		p.path = append(p.path, tok...)
	}
	p.state = wantNodeTag
	return nil
}

// A nameError says why a name is refused; it is what a SyntaxError found.
type nameError string

func (e nameError) Error() string { return string(e) }

func checkName[T string | []byte](name T) error {
	switch {
	case len(name) == 0:
		return nameError("an empty name")
	case len(name) > MaxName:
		return nameError(fmt.Sprintf("a name of %d bytes", len(name)))
	case string(name) == ".", string(name) == "..":
		return nameError(fmt.Sprintf("%q", name))
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return nameError(fmt.Sprintf("%q", name))
		}
	}
	return nil
}

func (p *parser) closeDirectory() {
	l := p.levels[len(p.levels)-1]
	p.levels = p.levels[:len(p.levels)-1]
	p.path = p.path[:max(l.start-1, 0)]
	p.closeNode()
}

func (p *parser) closeNode() {
	if len(p.levels) == 0 {
		p.state = wantEnd
		return
	}
	p.state = wantEntryClose
}
