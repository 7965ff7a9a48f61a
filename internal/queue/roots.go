package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/celler/celler/nix"
)

// Link makes the link that, once the store knows of it as an indirect root, keeps p
// from being collected, and returns its name.
func (q *Queue) Link(p nix.StorePath) (string, error) {
	dir := filepath.Join(q.dir, "roots")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("protect %v: %w", p, err)
	}
	link, err := filepath.Abs(filepath.Join(dir, p.Base()))
	if err != nil {
		return "", fmt.Errorf("protect %v: %w", p, err)
	}
	if err := os.Symlink(p.String(), link); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("protect %v: %w", p, err)
	}
	return link, nil
}

// Links lists the base names of all paths with a link.
func (q *Queue) Links() ([]string, error) {
	names, err := readNames(filepath.Join(q.dir, "roots"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the protected paths: %w", err)
	}
	return names, nil
}

// Unlink ends the protection of a path; the store forgets the root by itself.
func (q *Queue) Unlink(base string) error {
	if err := os.Remove(filepath.Join(q.dir, "roots", filepath.Base(base))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end the protection of %s: %w", base, err)
	}
	return nil
}
