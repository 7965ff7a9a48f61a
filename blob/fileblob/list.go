package fileblob

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"syscall"

	"github.com/celler/celler/blob"
)

// List implements blob.Bucket. Infos have no tags.
func (b *Bucket) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for _, k := range []blob.Key{prefix, after} {
			if err := k.ValidPrefix(); err != nil {
				yield(blob.Info{}, b.fail("list", k, err))
				return
			}
		}
		l := &lister{ctx: ctx, b: b, prefix: string(prefix), after: string(after), yield: yield}
		if _, err := l.walk(""); err != nil {
			yield(blob.Info{}, b.fail("list", prefix, err))
		}
	}
}

// lister is one listing.
type lister struct {
	ctx           context.Context //nolint:containedctx // lives for one call
	b             *Bucket
	prefix, after string
	yield         func(blob.Info, error) bool
}

// walk lists the directory dir, which is "" or ends in a slash. It returns false
// when the caller wants no more.
//
// Keys come out in bytewise order because a directory is sorted as if its name
// ended in the slash that all keys in it have: "a-b" < "a/c" < "a0".
func (l *lister) walk(dir string) (more bool, err error) {
	names, err := l.entries(dir)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if err := l.ctx.Err(); err != nil {
			return false, err
		}
		path := dir + name
		if strings.HasSuffix(name, "/") {
			more, err = l.walk(path)
		} else {
			more, err = l.object(path)
		}
		if err != nil || !more {
			return false, err
		}
	}
	return true, l.ctx.Err()
}

// entries returns the sorted names in dir that may lead to a key we look for.
func (l *lister) entries(dir string) ([]string, error) {
	d, err := l.b.root.Open("./" + dir)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := d.ReadDir(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	var names []string
	for _, e := range all {
		name := e.Name()
		if blob.Key(name).Valid() != nil {
			continue // ours, or a stranger's
		}
		switch path := dir + name; {
		case e.IsDir():
			if l.mayHold(path + "/") {
				names = append(names, name+"/")
			}
		case e.Type().IsRegular() && strings.HasPrefix(path, l.prefix) && path > l.after:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// mayHold tells whether a key below dir, which ends in a slash, may have the
// prefix and sort after after.
func (l *lister) mayHold(dir string) bool {
	related := strings.HasPrefix(dir, l.prefix) || strings.HasPrefix(l.prefix, dir)
	return related && (dir > l.after || strings.HasPrefix(l.after, dir))
}

func (l *lister) object(path string) (more bool, err error) {
	info, err := l.b.root.Lstat(path)
	if gone(err) {
		return true, nil // deleted since the directory was read
	}
	if err != nil {
		return false, err
	}
	return l.yield(blob.Info{Key: blob.Key(path), Size: info.Size(), ModTime: info.ModTime()}, nil), nil
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
