package chunkstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
)

// footerEntry is the ids of the chunks in an object, on their way or there.
type footerEntry struct {
	done     chan struct{}
	sections map[chunk.PackID]sectionIDs
	err      error
}

// sectionIDs is the ids of what is left of a pack.
type sectionIDs struct {
	ids []chunk.ID
	at  []uint32 // their positions in the pack, ascending; nil = all of them
}

// id returns the id of the chunk at position i, or false if there is none.
func (p sectionIDs) id(i uint32) (chunk.ID, bool) {
	n := int(i)
	if p.at != nil {
		var found bool
		if n, found = slices.BinarySearch(p.at, i); !found {
			return chunk.ID{}, false
		}
	}
	if n >= len(p.ids) {
		return chunk.ID{}, false
	}
	return p.ids[n], true
}

// ids returns the ids of the chunks of a pack, from memory or from the footer of its
// object. Readers that need the same footer share one request, which lives as long as
// the store, so that it does not end with the first of them.
func (s *Store) ids(ctx context.Context, v *packView) (sectionIDs, error) {
	e := &footerEntry{done: make(chan struct{})}
	if got := s.footers.put(v.Where(), e); got != e {
		e = got
	} else {
		s.wg.Go(func() {
			defer close(e.done)
			var f pack.Footer
			if f, e.err = s.readFooter(v); e.err != nil {
				s.footers.remove(v.Where())
				return
			}
			e.sections = sectionsOf(&f)
		})
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		return sectionIDs{}, ctx.Err()
	}
	if e.err != nil {
		return sectionIDs{}, e.err
	}
	part, ok := e.sections[v.ID]
	if !ok {
		return sectionIDs{}, fmt.Errorf("read footer of %s: it has nothing of pack %v", v.key(), v.ID)
	}
	return part, nil
}

func sectionsOf(f *pack.Footer) map[chunk.PackID]sectionIDs {
	sections := make(map[chunk.PackID]sectionIDs, len(f.Sections))
	for i := range f.Sections {
		p := &f.Sections[i]
		n := 0
		for _, fr := range p.Frames {
			n += len(fr.Entries)
		}
		ids := sectionIDs{ids: make([]chunk.ID, 0, n)}
		if n < int(p.Chunks) {
			ids.at = make([]uint32, 0, n)
		}
		for _, fr := range p.Frames {
			for _, e := range fr.Entries {
				ids.ids = append(ids.ids, e.ID)
				if ids.at != nil {
					ids.at = append(ids.at, e.Index)
				}
			}
		}
		sections[p.Pack] = ids
	}
	return sections
}

// footerTimeout bounds a shared request that nobody may be waiting for any more.
const footerTimeout = time.Minute

func (s *Store) readFooter(v *packView) (pack.Footer, error) {
	ctx, cancel := context.WithTimeout(s.ctx, footerTimeout)
	defer cancel()
	return s.again(ctx, int64(len(v.Sizes))*40, func(ctx context.Context) (pack.Footer, error) {
		return pack.ReadFooterOf(ctx, s.bucket, &v.Layout)
	})
}

// again reads a footer of about so many bytes, several times if need be.
func (s *Store) again(ctx context.Context, bytes int64, read func(context.Context) (pack.Footer, error)) (pack.Footer, error) {
	for tries := 1; ; tries++ {
		// One that stands still is given up, with more patience every time.
		patience, ok := s.peers.patience(bytes)
		if !ok {
			patience = stallTimeout
		}
		s.m.gets.Inc()
		once, stop := context.WithTimeout(ctx, patience<<(tries-1))
		f, err := read(once)
		stop()
		if err == nil || tries >= mostTries || permanent(ctx, err) {
			return f, err
		}
		s.m.retries.Inc()
		if !pause(ctx, firstPause<<(tries-1)) {
			return f, err
		}
	}
}
