package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// Options says where a Printer writes and how.
type Options struct {
	Stdout io.Writer // data; nil: discarded
	Stderr io.Writer // people; nil: discarded
	Quiet  bool      // suppress notes and progress; errors, warnings and data remain
	JSON   bool      // data and progress as JSON, one value a line
	Self   string    // what to type to run this program again, put into hints for "celler"; "" is celler itself
}

// Printer writes what a command has to say.
type Printer struct {
	quiet bool
	json  bool
	self  string
	size  func() (width, height int) // of the terminal on standard error; nil: it is none

	mu   sync.Mutex // guards what follows, and keeps lines whole
	out  io.Writer
	err  io.Writer
	live *Progress // the progress now drawn at the foot of the terminal, if any
}

// New returns a Printer over the two streams of o.
func New(o Options) *Printer {
	p := &Printer{quiet: o.Quiet, json: o.JSON, self: o.Self, out: o.Stdout, err: o.Stderr}
	if p.self == "" {
		p.self = "celler"
	}
	if p.out == nil {
		p.out = io.Discard
	}
	if p.err == nil {
		p.err = io.Discard
	}
	if f, ok := o.Stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.size = func() (int, int) {
			width, height, err := term.GetSize(int(f.Fd()))
			if err != nil || width <= 0 || height <= 0 {
				return 80, 24
			}
			return width, height
		}
	}
	return p
}

// JSON reports whether data is to be printed as JSON.
func (p *Printer) JSON() bool { return p.json }

// SetJSON chooses JSON output; a command calls it once, before it prints anything.
func (p *Printer) SetJSON(on bool) { p.json = on }

// SetQuiet suppresses notes and progress.
func (p *Printer) SetQuiet(on bool) { p.quiet = on }

// Terminal reports whether a person is watching standard error.
func (p *Printer) Terminal() bool { return p.size != nil }

// Data prints one line of data to standard output.
func (p *Printer) Data(format string, args ...any) {
	p.write(p.stdout, fmt.Sprintf(format, args...)+"\n")
}

// Raw copies b to standard output as it is.
func (p *Printer) Raw(b []byte) { p.write(p.stdout, string(b)) }

// Value prints v as one line of JSON on standard output.
func (p *Printer) Value(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode output as JSON: %w", err)
	}
	p.write(p.stdout, string(line)+"\n")
	return nil
}

// Note tells a person something on standard error, unless quiet.
func (p *Printer) Note(format string, args ...any) {
	if p.quiet {
		return
	}
	p.write(p.stderr, fmt.Sprintf(format, args...)+"\n")
}

// Warn tells a person about something that will bite later; quiet does not hide it.
func (p *Printer) Warn(format string, args ...any) {
	p.write(p.stderr, "celler: warning: "+fmt.Sprintf(format, args...)+"\n")
}

// Self is what to type to run this program again.
func (p *Printer) Self() string { return p.self }

// Error prints what went wrong and, one per line, what to do about it. A command of
// ours in a hint stands in double quotes, and is printed so that it can be typed here.
func (p *Printer) Error(command, sentence string, hints ...string) {
	var b strings.Builder
	b.WriteString("celler: ")
	if command != "" {
		b.WriteString(command + ": ")
	}
	b.WriteString(sentence + "\n")
	for _, hint := range hints {
		b.WriteString("hint: " + strings.ReplaceAll(hint, `"celler `, `"`+p.self+" ") + "\n")
	}
	p.write(p.stderr, b.String())
}

func (p *Printer) stdout() io.Writer { return p.out }
func (p *Printer) stderr() io.Writer { return p.err }

// write takes the progress off the screen, writes text, and puts it back. Output that
// cannot be written has nobody left to be reported to.
func (p *Printer) write(to func() io.Writer, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live != nil {
		p.live.erase()
	}
	_, _ = io.WriteString(to(), text)
	if p.live != nil {
		p.live.draw()
	}
}
