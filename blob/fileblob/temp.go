package fileblob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

const lockSuffix = ".lock"

// writeTemp stores body, synced, under a temporary name.
func (b *Bucket) writeTemp(body []byte) (string, error) {
	if err := b.step("create temp"); err != nil {
		return "", err
	}
	name := fmt.Sprintf("%s/%s.%d", tempDir, b.owner, b.temps.Add(1))
	f, err := b.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return "", err
	}
	if err := errors.Join(b.fillTemp(f, body), f.Close()); err != nil {
		b.dropTemp(name)
		return "", err
	}
	return name, nil
}

func (b *Bucket) fillTemp(f *os.File, body []byte) error {
	if err := b.step("write temp"); err != nil {
		return err
	}
	if _, err := write(f, body); err != nil {
		return err
	}
	if err := b.step("sync temp"); err != nil {
		return err
	}
	return f.Sync()
}

// dropTemp removes a temporary file. If that does not work out the next Open
// will do it, so the error is nobody's concern.
func (b *Bucket) dropTemp(name string) {
	_ = b.root.Remove(name)
}

// sweep removes the temporary files of owners that are no more.
func (b *Bucket) sweep() error {
	names, err := b.tempNames()
	if err != nil {
		return err
	}
	seen := map[string]bool{b.owner: true}
	for _, name := range names {
		owner, _, _ := strings.Cut(name, ".")
		if seen[owner] {
			continue
		}
		seen[owner] = true
		if err := b.sweepOwner(owner); err != nil {
			return fmt.Errorf("remove temporary files of %s: %w", owner, err)
		}
	}
	return nil
}

func (b *Bucket) sweepOwner(owner string) error {
	f, err := b.root.OpenFile(tempDir+"/"+owner+lockSuffix, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// An owner has its lock before its first temporary file and removes it
		// after the last one: this one is gone.
		return b.removeOwner(owner)
	}
	if err != nil {
		return err
	}
	dead, err := tryLock(f, exclusive)
	if dead {
		err = b.removeOwner(owner)
	}
	return errors.Join(err, f.Close())
}

// removeOwner removes all an owner left in ,tmp, the lock last.
func (b *Bucket) removeOwner(owner string) error {
	names, err := b.tempNames()
	if err != nil {
		return err
	}
	lock := owner + lockSuffix
	for _, name := range names {
		if strings.HasPrefix(name, owner+".") && name != lock {
			if err := b.root.Remove(tempDir + "/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := b.root.Remove(tempDir + "/" + lock); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (b *Bucket) tempNames() ([]string, error) {
	d, err := b.root.Open(tempDir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}
