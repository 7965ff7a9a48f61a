package nixstore

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// MaxLogBytes is the longest log of a build that BuildLog reads.
const MaxLogBytes = 64 << 20

// BuildLog opens the log of the build of a derivation, which is named by its base name, or
// returns nil if the store has none. The caller closes it. Nix keeps it in
// drvs/<first two characters>/<the others>, compressed with bzip2 if the name ends in
// ".bz2"; see its function openLogFile.
func (s *Store) BuildLog(drv string) (io.ReadCloser, error) {
	if len(drv) < 3 || drv != filepath.Base(drv) {
		return nil, fmt.Errorf("read log of %.100q: expected the base name of a derivation", drv)
	}
	name := filepath.Join(s.o.LogDir, "drvs", drv[:2], drv[2:])
	for _, ending := range []string{".bz2", ""} {
		f, err := os.Open(name + ending)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read log of %s: %w", drv, err)
		}
		l := &buildLog{Closer: f, src: f, drv: drv}
		if ending != "" {
			l.src = bzip2.NewReader(bufio.NewReader(f))
		}
		return l, nil
	}
	return nil, nil //nolint:nilnil // there is none
}

// buildLog is a log that is being read.
type buildLog struct {
	io.Closer
	src  io.Reader
	drv  string
	read int64
}

func (l *buildLog) Read(p []byte) (int, error) {
	n, err := l.src.Read(p)
	switch l.read += int64(n); {
	case l.read > MaxLogBytes:
		return 0, fmt.Errorf("read log of %s: it has more than %d bytes", l.drv, MaxLogBytes)
	case err != nil && !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("read log of %s: %w", l.drv, err)
	}
	return n, err
}
