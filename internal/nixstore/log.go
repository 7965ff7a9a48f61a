package nixstore

import (
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

// BuildLog returns the log of the build of a derivation, which is named by its base name,
// or false if the store has none. Nix keeps it in
// drvs/<first two characters>/<the others>, compressed with bzip2 if the name ends in
// ".bz2"; see its function openLogFile.
func (s *Store) BuildLog(drv string) ([]byte, bool, error) {
	if len(drv) < 3 || drv != filepath.Base(drv) {
		return nil, false, fmt.Errorf("read log of %.100q: expected the base name of a derivation", drv)
	}
	name := filepath.Join(s.o.LogDir, "drvs", drv[:2], drv[2:])
	for _, ending := range []string{".bz2", ""} {
		f, err := os.Open(name + ending)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, false, fmt.Errorf("read log of %s: %w", drv, err)
		}
		defer f.Close()
		var r io.Reader = f
		if ending != "" {
			r = bzip2.NewReader(f)
		}
		text, err := io.ReadAll(io.LimitReader(r, MaxLogBytes+1))
		if err != nil {
			return nil, false, fmt.Errorf("read log of %s: %w", drv, err)
		}
		if len(text) > MaxLogBytes {
			return nil, false, fmt.Errorf("read log of %s: it has more than %d bytes", drv, MaxLogBytes)
		}
		return text, true, nil
	}
	return nil, false, nil
}
