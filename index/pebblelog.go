package index

import (
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
)

// pebbleLogger carries what Pebble says to slog, and what it says about failing
// disks and damaged files to the DB.
type pebbleLogger struct {
	log *slog.Logger
	db  *DB
}

var _ pebble.Logger = (*pebbleLogger)(nil)

func newPebbleLogger(log *slog.Logger, db *DB) *pebbleLogger { return &pebbleLogger{log: log, db: db} }

// Infof drops what Pebble finds interesting: nothing in it is for an operator.
func (l *pebbleLogger) Infof(string, ...any) {}

// Errorf comes with no error to return, so it is a line of the log.
func (l *pebbleLogger) Errorf(format string, args ...any) {
	l.log.Error("pebble reports an error", "err", fmt.Sprintf(format, args...))
}

// Fatalf must not return. Pebble calls it when it can no longer tell what is on
// the disk, as when the disk is full while it replaces its manifest, and goes on
// from a state of its own that we may not touch. So the process ends here; what
// the node knew is in the bucket.
func (l *pebbleLogger) Fatalf(format string, args ...any) {
	err := &DiskError{Dir: l.db.dir, Err: caused(fmt.Sprintf(format, args...), args)}
	l.db.fail(err)
	panic(err)
}

// causedError has the text that Pebble made and the error that it put into it.
type causedError struct {
	text  string
	cause error
}

func (e *causedError) Error() string { return e.text }
func (e *causedError) Unwrap() error { return e.cause }

// caused keeps the first error among the arguments of a text.
func caused(text string, args []any) error {
	e := &causedError{text: text}
	for _, arg := range args {
		if err, ok := arg.(error); ok {
			e.cause = err
			break
		}
	}
	return e
}

func (l *pebbleLogger) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { l.db.fail(l.db.background(err)) },
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			l.db.fail(&CorruptError{Dir: l.db.dir, Err: fmt.Errorf("%s: %w", info.Path, info.Details)})
		},
		DiskSlow: func(info pebble.DiskSlowInfo) {
			l.log.Warn("the disk of the index is slow", "err", info.String())
		},
		LowDiskSpace: func(info pebble.LowDiskSpaceInfo) {
			l.log.Warn("the disk of the index is nearly full", "err", info.String())
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			l.log.Warn("applying waits for the disk of the index", "err", info.Reason)
		},
	}
}
