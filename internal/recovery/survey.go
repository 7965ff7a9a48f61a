package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
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
	// What is written of a run, below evidencePrefix.
	reportName = "REPORT"
	doneName   = "DONE"
	// evidencePrefix is where replaced objects are copied to.
	evidencePrefix blob.Key = "recover/"
)

// BlindError reports a bucket whose listing does not show what can be read there, or
// not all of it, so that what it does not show cannot be taken to be missing.
type BlindError struct{ Key blob.Key }

func (e *BlindError) Error() string {
	return fmt.Sprintf("the bucket does not list %s as it is: nothing can be concluded from what it lists", e.Key)
}

// FickleError reports a bucket that lists one thing and then another, while nobody is
// known to change it.
type FickleError struct{ Key blob.Key }

func (e *FickleError) Error() string {
	return fmt.Sprintf("the bucket lists %s at one time and not at another: either somebody is at work on it, or nothing can be concluded from what it lists", e.Key)
}

// listed is what a listing tells of the objects that matter here.
type listed struct {
	slots     map[wal.Seq]blob.Info
	snapshots []blob.Info // as listed: oldest slot first
	tables    map[blob.Key]int64
	evidence  uint32          // highest number in use
	reports   map[uint32]bool // recoveries that wrote a report; whether they ended
}

// shows reports whether an object that is looked for by its name was listed.
func (l *listed) shows(key blob.Key) bool {
	if name, ok := strings.CutPrefix(string(key), "log/"); ok {
		seq, err := wal.ParseSeq(name)
		return err == nil && l.slots[seq].Key != ""
	}
	return slices.ContainsFunc(l.snapshots, func(i blob.Info) bool { return i.Key == key })
}

// differs returns an object that one of two listings shows and the other does not.
func (l *listed) differs(other *listed) (blob.Key, bool) {
	for _, pair := range [][2]*listed{{l, other}, {other, l}} {
		for seq, info := range pair[0].slots {
			if _, ok := pair[1].slots[seq]; !ok {
				return info.Key, true
			}
		}
		for _, info := range pair[0].snapshots {
			if !pair[1].shows(info.Key) {
				return info.Key, true
			}
		}
		for key, size := range pair[0].tables {
			if got, ok := pair[1].tables[key]; !ok || got != size {
				return key, true
			}
		}
	}
	return "", false
}

// list lists all but the packs.
func list(ctx context.Context, bucket blob.Bucket) (*listed, error) {
	l := &listed{slots: map[wal.Seq]blob.Info{}, tables: map[blob.Key]int64{}, reports: map[uint32]bool{}}
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
			number, name, _ := strings.Cut(strings.TrimPrefix(string(i.Key), string(evidencePrefix)), "/")
			n, err := strconv.ParseUint(number, 16, 32)
			if err != nil {
				return
			}
			l.evidence = max(l.evidence, uint32(n))
			if name == reportName || name == doneName {
				l.reports[uint32(n)] = l.reports[uint32(n)] || name == doneName
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
			absent, err := absent(ctx, x.log, key)
			return object{absent: absent}, err
		case err != nil:
			return object{}, err
		}
		if !x.listed.shows(key) {
			if err := x.seen(ctx, key); err != nil {
				return object{}, err
			}
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
func absent(ctx context.Context, bucket blob.Bucket, key blob.Key) (bool, error) {
	for range confirmations {
		for info, err := range bucket.List(ctx, key, "") {
			if err != nil {
				return false, fmt.Errorf("look for %s: %w", key, err)
			}
			if info.Key == key {
				return false, fmt.Errorf("look for %s: the bucket lists it and does not give it", key)
			}
			break
		}
		_, _, err := bucket.Get(ctx, key)
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
		absent, err := absent(ctx, x.log, t.Key)
		if absent {
			damage = "missing"
		}
		return damage, err
	}
	for range readAttempts {
		var sum wal.Digest
		sum, err = x.hash(ctx, t)
		switch {
		case err == nil && sum == t.SHA256 && size < t.Size:
			return "", &BlindError{t.Key}
		case err == nil && sum == t.SHA256:
			return "", nil
		case size < t.Size && (err == nil || errors.Is(err, io.ErrUnexpectedEOF)):
			damage = fmt.Sprintf("damaged: it has %d bytes, want %d", size, t.Size)
		case errors.Is(err, io.ErrUnexpectedEOF):
			return "", fmt.Errorf("read table %s: the bucket lists %d bytes, and stops earlier: %w", t.Key, size, err)
		case err != nil:
			return "", fmt.Errorf("read table %s: %w", t.Key, err)
		default:
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
