package fileblob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/celler/celler/blob"
)

// Get implements blob.Bucket.
func (b *Bucket) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	return b.get(ctx, "get", key)
}

// GetIf implements blob.Bucket.
func (b *Bucket) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	body, tag, err := b.get(ctx, "get_if", key)
	if err == nil && old != "" && tag == old {
		return nil, "", outcome("get_if", key, blob.ErrUnchanged)
	}
	return body, tag, err
}

func (b *Bucket) get(ctx context.Context, op string, key blob.Key) ([]byte, blob.Tag, error) {
	if err := b.enter(ctx, op, key); err != nil {
		return nil, "", err
	}
	body, tag, err := b.read(key)
	if errors.Is(err, blob.ErrNotExist) {
		return nil, "", outcome(op, key, err)
	}
	if err != nil {
		return nil, "", b.fail(op, key, err)
	}
	return body, tag, nil
}

// read returns blob.ErrNotExist or an unwrapped error.
func (b *Bucket) read(key blob.Key) (body []byte, tag blob.Tag, err error) {
	f, size, err := b.openObject(key)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size > blob.MaxGetBytes {
		return nil, "", fmt.Errorf("object has %d bytes, at most %d are read at once", size, blob.MaxGetBytes)
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(f, body); err != nil {
		return nil, "", err
	}
	return body, tagOf(body), nil
}

// openObject opens an object's file. Files never change once they have their
// name, so size is the size of what will be read.
func (b *Bucket) openObject(key blob.Key) (*os.File, int64, error) {
	f, err := b.root.Open(string(key))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		if err := b.inPlace(); err != nil {
			return nil, 0, err
		}
		return nil, 0, blob.ErrNotExist
	case err != nil:
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = blob.ErrNotExist
	}
	if err != nil {
		_ = f.Close() // only read from
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func tagOf(body []byte) blob.Tag {
	sum := sha256.Sum256(body)
	return blob.Tag(`"` + hex.EncodeToString(sum[:16]) + `"`)
}

// GetRange implements blob.Bucket.
func (b *Bucket) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	if err := b.enter(ctx, "get_range", key); err != nil {
		return nil, err
	}
	if err := blob.ValidRange(off, n); err != nil {
		return nil, b.fail("get_range", key, err)
	}
	f, _, err := b.openObject(key)
	if errors.Is(err, blob.ErrNotExist) {
		return nil, outcome("get_range", key, err)
	}
	if err != nil {
		return nil, b.fail("get_range", key, err)
	}
	return &reader{ctx: ctx, b: b, key: key, f: f, off: off, left: n}, nil
}

// reader streams part of an object.
type reader struct {
	ctx  context.Context //nolint:containedctx // the reader is the rest of the call that had this ctx
	b    *Bucket
	key  blob.Key
	f    *os.File
	off  int64
	left int64
}

func (r *reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if err := r.ctx.Err(); err != nil {
		return 0, r.b.fail("get_range", r.key, err)
	}
	n, err := r.f.ReadAt(p[:min(int64(len(p)), r.left)], r.off)
	r.off += int64(n)
	r.left -= int64(n)
	switch {
	case n > 0 || err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		return 0, io.ErrUnexpectedEOF
	}
	return 0, r.b.fail("get_range", r.key, err)
}

func (r *reader) Close() error { return r.f.Close() }
