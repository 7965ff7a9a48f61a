package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

const (
	// readAttempts is how often an object is read before it counts as damaged.
	readAttempts = 3
	// confirmations is how often it is looked for before it counts as missing.
	confirmations = 2
	// parallel is how many objects are read at once.
	parallel = 16
	// evidencePrefix is where replaced objects are copied to.
	evidencePrefix blob.Key = "recover/"
)

// BlindError reports a bucket whose listing does not show what can be read there, so
// that what it does not show cannot be taken to be missing.
type BlindError struct{ Key blob.Key }

func (e *BlindError) Error() string {
	return fmt.Sprintf("the bucket does not list %s, which it has: nothing can be concluded from what it lists", e.Key)
}

// listed is what a listing tells of the objects that matter here.
type listed struct {
	slots     map[wal.Seq]blob.Info
	snapshots []blob.Info // as listed: oldest slot first
	tables    map[blob.Key]int64
	evidence  uint32 // highest number in use
}

// list lists all but the packs.
func list(ctx context.Context, bucket blob.Bucket) (*listed, error) {
	l := &listed{slots: map[wal.Seq]blob.Info{}, tables: map[blob.Key]int64{}}
	each := func(prefix blob.Key, note func(blob.Info)) error {
		for info, err := range bucket.List(ctx, prefix, "") {
			if err != nil {
				return fmt.Errorf("list %s: %w", prefix, err)
			}
			note(info)
		}
		return nil
	}
	return l, errors.Join(
		each("log/", func(i blob.Info) {
			if seq, err := wal.ParseSeq(strings.TrimPrefix(string(i.Key), "log/")); err == nil && seq > 0 {
				l.slots[seq] = i
			}
		}),
		each("snap/", func(i blob.Info) {
			if _, ok := snapshotSeq(i.Key); ok {
				l.snapshots = append(l.snapshots, i)
			}
		}),
		each("tab/", func(i blob.Info) {
			if _, err := wal.ParseTableKey(i.Key); err == nil {
				l.tables[i.Key] = i.Size
			}
		}),
		each(evidencePrefix, func(i blob.Info) {
			var n uint32
			if _, err := fmt.Sscanf(strings.TrimPrefix(string(i.Key), string(evidencePrefix)), "%08x/", &n); err == nil {
				l.evidence = max(l.evidence, n)
			}
		}),
	)
}

// snapshotSeq returns the slot in the name of a snapshot.
func snapshotSeq(key blob.Key) (wal.Seq, bool) {
	name := strings.TrimPrefix(string(key), "snap/")
	seq, err := wal.ParseSeq(name[:min(16, len(name))])
	return seq, err == nil && seq > 0
}

// object is what became of reading one object.
type object struct {
	body   []byte
	tag    blob.Tag
	absent bool
	damage error // what its bytes cannot be
}

// found reports whether there is an object, damaged or not.
func (o *object) found() bool { return !o.absent }

// sound reports whether it is what it should be.
func (o *object) sound() bool { return !o.absent && o.damage == nil }

// read reads an object and decodes it. Its absence is confirmed, its damage too.
func (x *examiner) read(ctx context.Context, key blob.Key, decode func([]byte) error) (object, error) {
	var o object
	for attempt := 1; ; attempt++ {
		body, tag, err := x.log.Get(ctx, key)
		switch {
		case errors.Is(err, blob.ErrNotExist):
			absent, err := x.absent(ctx, key)
			return object{absent: absent}, err
		case err != nil:
			return object{}, err
		}
		o = object{body: body, tag: tag}
		err = decode(body)
		switch {
		case err == nil:
			return o, nil
		case errors.Is(err, wal.ErrTooOld):
			return object{}, fmt.Errorf("%s: %w", key, err)
		}
		if o.damage = err; attempt == readAttempts {
			return o, nil
		}
	}
}

// absent makes sure that there is no such object. That somebody lists it and cannot
// get it is an error, too.
func (x *examiner) absent(ctx context.Context, key blob.Key) (bool, error) {
	for range confirmations {
		for info, err := range x.log.List(ctx, key, "") {
			if err != nil {
				return false, fmt.Errorf("look for %s: %w", key, err)
			}
			if info.Key == key {
				return false, fmt.Errorf("look for %s: the bucket lists it and does not give it", key)
			}
			break
		}
		_, _, err := x.log.Get(ctx, key)
		if err == nil {
			return false, fmt.Errorf("look for %s: it was not there at first, and then it was", key)
		}
		if !errors.Is(err, blob.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}

// seen makes sure that a listing shows an object that was read.
func (x *examiner) seen(ctx context.Context, key blob.Key) error {
	for info, err := range x.log.List(ctx, key, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", key, err)
		}
		if info.Key == key {
			return nil
		}
		break
	}
	return &BlindError{key}
}

// checkTable reads a table to its end and compares it with its digest; in a quick
// examination it looks at the listing. A nil error is a verdict, too: damage then says
// what is wrong, "" for nothing.
func (x *examiner) checkTable(ctx context.Context, t *wal.Table) (damage string, err error) {
	size, there := x.listed.tables[t.Key]
	if there && size == t.Size && x.o.Quick {
		return "", nil
	}
	if !there {
		if absent, err := x.absent(ctx, t.Key); err != nil {
			return "", err
		} else if absent {
			return "missing", nil
		}
	}
	if size != t.Size {
		return fmt.Sprintf("damaged: it has %d bytes, want %d", size, t.Size), nil
	}
	for range readAttempts {
		var sum wal.Digest
		if sum, err = x.hash(ctx, t); err == nil && sum == t.SHA256 {
			return "", nil
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			damage, err = "damaged: it ends too early", nil
		}
		if err != nil {
			return "", fmt.Errorf("read table %s: %w", t.Key, err)
		}
		if damage == "" {
			damage = fmt.Sprintf("damaged: its SHA-256 is %v, want %v", sum, t.SHA256)
		}
	}
	return damage, nil
}

// each calls fn for 0 to n-1, several at once, and returns all errors.
func each(ctx context.Context, n int, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan int, n)
	for i := range n {
		work <- i
	}
	close(work)
	var wg sync.WaitGroup
	for range min(parallel, n) {
		wg.Go(func() {
			for i := range work {
				if ctx.Err() != nil {
					return
				}
				if err := fn(ctx, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
