package fileblob

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/celler/celler/blob"
)

// Create implements blob.Bucket.
func (b *Bucket) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if err := b.enterWrite(ctx, "create", key); err != nil {
		return "", err
	}
	// A writer that comes too late should not pay for two syncs.
	if info, err := b.root.Lstat(string(key)); err == nil && info.Mode().IsRegular() {
		return "", outcome("create", key, blob.ErrExist)
	}
	temp, err := b.writeTemp(body)
	if err != nil {
		return "", b.fail("create", key, err)
	}
	defer b.dropTemp(temp)
	err = b.place(key, "link", func() error { return b.root.Link(temp, string(key)) })
	switch {
	case errors.Is(err, fs.ErrExist):
		return "", outcome("create", key, blob.ErrExist)
	case errors.Is(err, syscall.EPERM):
		// The temporary file could be written: it is the link that is impossible.
		return "", b.fail("create", key, errors.Join(errNoLink, err))
	case err != nil:
		return "", b.fail("create", key, err)
	}
	if err := b.syncDir(path.Dir(string(key))); err != nil {
		return "", b.fail("create", key, err)
	}
	return tagOf(body), nil
}

// Swap implements blob.Bucket.
func (b *Bucket) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	if err := b.enterWrite(ctx, "swap", key); err != nil {
		return "", err
	}
	compare := func() error {
		_, tag, err := b.read(key)
		if errors.Is(err, blob.ErrNotExist) || err == nil && tag != old {
			return blob.ErrChanged
		}
		return err
	}
	swap := func() error {
		// Most swaps that lose have lost already, and need no file.
		if err := compare(); err != nil {
			return err
		}
		temp, err := b.writeTemp(body)
		if err != nil {
			return err
		}
		defer b.dropTemp(temp)
		return b.withLock(ctx, exclusive, func() error {
			if err := compare(); err != nil {
				return err
			}
			if err := b.place(key, "rename", func() error { return b.root.Rename(temp, string(key)) }); err != nil {
				return err
			}
			// Under the lock: who swaps next has seen this version, so it must be durable first.
			return b.syncDir(path.Dir(string(key)))
		})
	}
	switch err := swap(); {
	case errors.Is(err, blob.ErrChanged):
		return "", outcome("swap", key, blob.ErrChanged)
	case err != nil:
		return "", b.fail("swap", key, err)
	}
	return tagOf(body), nil
}

// Put implements blob.Bucket. It tells no tag: that would be a hash of all of a pack.
func (b *Bucket) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if err := b.enterWrite(ctx, "put", key); err != nil {
		return "", err
	}
	put := func() error {
		temp, err := b.writeTemp(body)
		if err != nil {
			return err
		}
		defer b.dropTemp(temp)
		err = b.withLock(ctx, shared, func() error {
			return b.place(key, "rename", func() error { return b.root.Rename(temp, string(key)) })
		})
		if err != nil {
			return err
		}
		return b.syncDir(path.Dir(string(key)))
	}
	if err := put(); err != nil {
		return "", b.fail("put", key, err)
	}
	return "", nil
}

// Delete implements blob.Bucket. Directories stay: removing one could pull it
// away under a Create in another process.
func (b *Bucket) Delete(ctx context.Context, keys ...blob.Key) error {
	if len(keys) == 0 {
		return nil
	}
	if err := b.enterWrite(ctx, "delete", keys...); err != nil {
		return err
	}
	dirs := map[string]bool{}
	for _, key := range keys {
		err := b.withLock(ctx, shared, func() error { return b.unlink(key) })
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		case err != nil:
			return b.fail("delete", key, err)
		default:
			dirs[path.Dir(string(key))] = true
		}
	}
	for dir := range dirs {
		if err := b.syncDir(dir); err != nil {
			return b.fail("delete", keys[0], err)
		}
	}
	return nil
}

func (b *Bucket) unlink(key blob.Key) error {
	info, err := b.root.Lstat(string(key))
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fs.ErrNotExist
	}
	if err := b.step("unlink"); err != nil {
		return err
	}
	return b.root.Remove(string(key))
}

// place gives a synced file its name by calling do, after making sure that the
// directory is there and durable.
func (b *Bucket) place(key blob.Key, step string, do func() error) error {
	dir := path.Dir(string(key))
	for attempt := 0; ; attempt++ {
		if err := b.makeDir(dir, key); err != nil {
			return err
		}
		if err := b.step(step); err != nil {
			return err
		}
		err := do()
		switch {
		case errors.Is(err, fs.ErrNotExist) && attempt == 0:
			// Somebody removed the directory behind our back: make it again.
			b.forgetDir(dir)
			continue
		case err != nil:
			if info, statErr := b.root.Lstat(string(key)); statErr == nil && info.IsDir() {
				return &clashError{string(key), string(key) + "/…"}
			}
		}
		return err
	}
}

// maxSynced bounds the memory of directories: a new one appears with every
// upload epoch.
const maxSynced = 4096

// makeDir makes sure that dir exists and will exist after a power cut. It trusts
// nobody else with the latter: a directory another process made a moment ago may
// not be in its parent durably, and the first use here syncs it again.
func (b *Bucket) makeDir(dir string, key blob.Key) error {
	b.mu.Lock()
	done := b.synced[dir]
	b.mu.Unlock()
	if done {
		return nil
	}
	parent := path.Dir(dir)
	if err := b.makeDir(parent, key); err != nil {
		return err
	}
	if err := b.step("mkdir"); err != nil {
		return err
	}
	switch err := b.root.Mkdir(dir, dirMode); {
	case errors.Is(err, fs.ErrExist):
		info, err := b.root.Lstat(dir)
		if err == nil && !info.IsDir() {
			err = &clashError{dir, string(key)}
		}
		if err != nil {
			return err
		}
	case err != nil:
		return err
	}
	if err := b.syncDir(parent); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.synced) >= maxSynced {
		b.synced = map[string]bool{".": true}
	}
	b.synced[dir] = true
	return nil
}

// forgetDir forgets that dir and what is above and below it are durable.
func (b *Bucket) forgetDir(dir string) {
	top, _, _ := strings.Cut(dir, "/")
	b.mu.Lock()
	defer b.mu.Unlock()
	for d := range b.synced {
		if d == top || strings.HasPrefix(d, top+"/") {
			delete(b.synced, d)
		}
	}
	b.synced["."] = true
}

func (b *Bucket) syncDir(dir string) (err error) {
	if err := b.step("sync dir"); err != nil {
		return err
	}
	var d *os.File
	if d, err = b.root.Open(dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Sync()
}
