package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// LogQuery says what of a log is wanted. The zero query is all of it.
type LogQuery struct {
	From, To     uint64 // slots, both included; 0: the first, the last there is
	Since, Until *When  // stored after the one and not after the other
	Cache        string // operations that concern this cache
	Path         string // operations on this path: a store path, its base name or its hash part
	Who          string // operations on behalf of somebody in whose name this is found
}

// filtered says that single operations are left out.
func (q *LogQuery) filtered() bool { return q.Cache != "" || q.Path != "" || q.Who != "" }

// LogRange is what part of a log a query came to.
type LogRange struct {
	First, Last uint64
	// Begins is the slot that the log begins with, if Since is earlier; else 0.
	Begins uint64
}

// ReadLog reads segments of the log in a bucket. It writes nothing and needs no server.
// Whole operations are left out, and segments of which nothing is left. found, if not nil,
// is told the slots that are read before they are.
func ReadLog(ctx context.Context, b config.Buckets, q LogQuery, found func(LogRange)) iter.Seq2[LogSegment, error] {
	return func(yield func(LogSegment, error) bool) {
		pick, err := newPicker(q)
		if err != nil {
			yield(LogSegment{}, err)
			return
		}
		err = withLogBucket(ctx, b, func(bucket blob.Bucket) error {
			within, err := q.slots(ctx, bucket)
			if err != nil {
				return fmt.Errorf("read log in bucket %s: %w", b.LogBucket, err)
			}
			if found != nil {
				found(within)
			}
			if within.First > within.Last {
				return nil
			}
			for seg, err := range wal.ReadSegments(ctx, bucket, wal.Seq(within.First), wal.Seq(within.Last)) {
				if err != nil {
					return fmt.Errorf("read log in bucket %s: %w", b.LogBucket, err)
				}
				if out, any := pick.segment(seg); any && !yield(out, nil) {
					return errEnough
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(LogSegment{}, err)
		}
	}
}

var errEnough = errors.New("enough")

// slots works out which slots are asked for, at most those there are.
func (q *LogQuery) slots(ctx context.Context, bucket blob.Bucket) (within LogRange, err error) {
	h, err := wal.ReadHistory(ctx, bucket)
	if err != nil {
		return within, err
	}
	tail, err := wal.FindTail(ctx, bucket)
	if err != nil {
		return within, err
	}
	first, last := wal.Seq(q.From), wal.Seq(q.To)
	if first > tail {
		return within, &wal.UnreachableError{Seq: first, Tail: tail}
	}
	if first == 0 {
		first = max(h.Root.Floor, 1)
	}
	if last == 0 || last > tail {
		last = tail
	}
	if q.Since != nil {
		m, err := q.Since.resolve(ctx, bucket)
		if _, old := errors.AsType[*wal.NothingSoOldError](err); err != nil && !old {
			return within, err
		}
		if wal.Seq(m.Seq)+1 < h.Root.Floor {
			within.Begins = uint64(h.Root.Floor)
		}
		first = max(first, wal.Seq(m.Seq)+1)
	}
	if q.Until != nil {
		m, err := q.Until.resolve(ctx, bucket)
		if _, old := errors.AsType[*wal.NothingSoOldError](err); err != nil && !old {
			return within, err
		}
		last = min(last, wal.Seq(m.Seq))
	}
	within.First, within.Last = uint64(first), uint64(last)
	return within, nil
}

// picker picks the operations of segments that a query asks for.
type picker struct {
	LogQuery
	hashPart []byte
	ids      map[keyspace.CacheID]bool // numbers that the cache was seen to have
}

func newPicker(q LogQuery) (*picker, error) {
	p := &picker{LogQuery: q, ids: map[keyspace.CacheID]bool{}}
	if q.Path != "" {
		hashPart, err := parseHashPart(q.Path)
		if err != nil {
			return nil, err
		}
		p.hashPart = hashPart[:]
	}
	if q.Cache != "" {
		if _, err := keyspace.ParseCacheName(q.Cache); err != nil {
			return nil, &PathError{err}
		}
	}
	return p, nil
}

// PathError reports a text that names no store path or no cache.
type PathError struct{ Err error }

func (e *PathError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong with it.
func (e *PathError) Unwrap() error { return e.Err }

// parseHashPart reads a store path, in whatever store directory, a base name, or a hash
// part alone.
func parseHashPart(text string) (nix.HashPart, error) {
	base := text[strings.LastIndexByte(text, '/')+1:]
	part, _, _ := strings.Cut(base, "-")
	hashPart, err := nix.ParseHashPart(part)
	if err != nil {
		return hashPart, &PathError{fmt.Errorf("store path %.100q: %w", text, err)}
	}
	return hashPart, nil
}

// segment describes what is wanted of a segment, and says whether that is anything.
func (p *picker) segment(seg *wal.Segment) (LogSegment, bool) {
	out := LogSegment{
		Seq: uint64(seg.Seq), Time: seg.Time.UTC(), Writer: seg.Writer.String(), Batch: seg.Batch, Prev: seg.Prev.String(),
		Entries: []LogEntry{},
	}
	for entries := seg.Entries; len(entries) > 0; {
		n := 1
		for n < len(entries) && entries[n].Kind != wal.PushBoundary {
			n++
		}
		if p.wants(entries[:n]) {
			for i := range entries[:n] {
				out.Entries = append(out.Entries, describeEntry(entries[i]))
			}
		}
		entries = entries[n:]
	}
	return out, len(out.Entries) > 0 || !p.filtered()
}

// wants reports whether an operation is asked for: its boundary, if it has one, and
// its entries.
func (p *picker) wants(op []wal.Entry) bool {
	if !p.filtered() {
		return true
	}
	about, by := "", ""
	if op[0].Kind == wal.PushBoundary {
		_, about, by = op[0].Boundary()
	}
	cache := p.Cache == "" || about == p.Cache
	path := p.hashPart == nil
	for i := range op {
		cache = p.concernsCache(&op[i], about) || cache
		path = path || p.concernsPath(&op[i])
	}
	return cache && path && (p.Who == "" || strings.Contains(strings.ToLower(by), strings.ToLower(p.Who)))
}

// concernsCache knows operations that do not say what they are about, by the names and
// the numbers of caches in their rows. A number is learnt where it comes with the name.
func (p *picker) concernsCache(e *wal.Entry, about string) bool {
	if p.Cache == "" || e.Kind == wal.PushBoundary || len(e.Key) == 0 {
		return false
	}
	switch e.Key[0] {
	case keyspace.CachePrefix:
		name, err := keyspace.DecodeCacheKey(e.Key)
		if err != nil || string(name) != p.Cache {
			return false
		}
		if c, err := keyspace.DecodeCache(e.Key, e.Value); err == nil && e.Kind == wal.Set {
			p.ids[c.ID] = true
		}
		return true
	case keyspace.PinPrefix:
		id, _, _, err := keyspace.DecodePinKey(e.Key)
		return err == nil && p.ids[id]
	case keyspace.PathPrefix:
		id, _, err := keyspace.DecodePathKey(e.Key)
		if about == p.Cache && err == nil {
			p.ids[id] = true
		}
		return err == nil && p.ids[id]
	}
	return false
}

func (p *picker) concernsPath(e *wal.Entry) bool {
	if e.Kind == wal.PushBoundary {
		return false
	}
	return bytes.Contains(e.Key, p.hashPart) || strings.HasPrefix(keyspace.Kind(e.Key), "pin") && bytes.Contains(e.Value, p.hashPart)
}
