package nixstore

import (
	"errors"
	"fmt"
	"strings"
)

// Tags of the messages that precede a result.
const (
	msgNext          = 0x6f6c6d67 // a log line
	msgRead          = 0x64617461 // a demand for data
	msgWrite         = 0x64617416 // data
	msgLast          = 0x616c7473 // the result follows
	msgError         = 0x63787470 // the operation failed
	msgStartActivity = 0x53545254
	msgStopActivity  = 0x53544f50
	msgResult        = 0x52534c54
)

const (
	// maxMessages bounds how much a daemon can say before it answers; a
	// misbehaving one would otherwise keep a caller without deadline for ever.
	maxMessages = 1 << 20
	// maxTraces and maxFields bound the lists inside messages.
	maxTraces = 1 << 10
	maxFields = 1 << 10
)

// A DaemonError is what the daemon said about an operation that it could not do.
// The connection remains usable.
type DaemonError struct {
	Message string
	Traces  []string // innermost first, as the daemon lists them
}

func (e *DaemonError) Error() string {
	var s strings.Builder
	s.WriteString("nix daemon: " + e.Message)
	for _, t := range e.Traces {
		s.WriteString("; " + t)
	}
	return s.String()
}

// messages reads up to and including LAST, or ERROR, which it returns.
func (d *decoder) messages(minor uint64) error {
	for range maxMessages {
		switch tag := d.uint64(); {
		case d.err != nil:
			return d.err
		case tag == msgLast:
			return nil
		case tag == msgError:
			err := d.daemonError(minor)
			if d.err != nil {
				return d.err
			}
			return err
		case tag == msgNext, tag == msgWrite:
			d.string("a log line", maxString)
		case tag == msgStartActivity:
			d.uint64() // activity
			d.uint64() // level
			d.uint64() // type
			d.string("the text of an activity", maxString)
			d.fields()
			d.uint64() // parent
		case tag == msgStopActivity:
			d.uint64() // activity
		case tag == msgResult:
			d.uint64() // activity
			d.uint64() // type
			d.fields()
		default:
			d.badf("a message", "tag %#x", tag)
		}
	}
	d.fail(errors.New("nix daemon: no end of messages"))
	return d.err
}

func (d *decoder) fields() {
	n := d.uint64()
	if n > maxFields {
		d.badf(fmt.Sprintf("at most %d fields", maxFields), "%d", n)
	}
	for range n {
		switch kind := d.uint64(); {
		case d.err != nil:
			return
		case kind == 0:
			d.uint64()
		case kind == 1:
			d.string("a field", maxString)
		default:
			d.badf("a field of type 0 or 1", "type %d", kind)
		}
	}
}

func (d *decoder) daemonError(minor uint64) *DaemonError {
	e := &DaemonError{}
	if minor < 26 {
		e.Message = plain(d.string("an error message", maxString))
		d.uint64() // exit status
		return e
	}
	if kind := d.string("the type of an error", maxString); d.err == nil && kind != "Error" {
		d.badf(`an error of type "Error"`, "%q", kind)
	}
	d.uint64()                              // level
	d.string("the name of an error", 1<<10) // always "Error"
	e.Message = plain(d.string("an error message", maxString))
	d.noPosition()
	n := d.uint64()
	if n > maxTraces {
		d.badf(fmt.Sprintf("at most %d traces", maxTraces), "%d", n)
	}
	for range n {
		d.noPosition()
		t := plain(d.string("a trace", maxString))
		if d.err != nil {
			return e
		}
		e.Traces = append(e.Traces, t)
	}
	return e
}

// noPosition reads the flag that says whether a position follows; no daemon has
// ever sent one.
func (d *decoder) noPosition() {
	if n := d.uint64(); n != 0 {
		d.badf("an error without position", "flag %d", n)
	}
}

// plain removes what a terminal would interpret, which is how daemons emphasise,
// and folds the text into one line.
func plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != 0x1b {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '[' {
			for i += 2; i < len(s) && (s[i] < 0x40 || s[i] > 0x7e); i++ {
			}
		}
	}
	text := strings.Join(strings.Fields(b.String()), " ")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, text)
	return strings.TrimPrefix(text, "error: ")
}
