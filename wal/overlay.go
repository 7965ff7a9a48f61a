package wal

import (
	"bytes"
	"iter"
	"math/bits"
)

// overlay is a View of a state plus the entries of the earlier operations of a
// batch. It lets the sequencer build a batch of operations each of which sees
// those before it, without touching the state.
type overlay struct {
	base View
	rows skipList // what the batch set or deleted
	// cleared holds the ranges the batch deleted. They hide rows of the base
	// only: rows of the overlay inside them were turned into deletions.
	cleared []keyRange
}

type keyRange struct{ from, to []byte } // half-open

func newOverlay(base View) *overlay { return &overlay{base: base, rows: newSkipList()} }

// apply performs entries on the overlay.
func (o *overlay) apply(entries []Entry) {
	for i := range entries {
		e := &entries[i]
		switch e.Kind {
		case Set:
			o.rows.put(e.Key, e.Value, false)
		case Delete:
			o.rows.put(e.Key, nil, true)
		case DeleteRange:
			o.cleared = append(o.cleared, keyRange{e.Key, e.Value})
			for n := o.rows.seek(e.Key); n != nil && bytes.Compare(n.key, e.Value) < 0; n = n.next[0] {
				n.value, n.deleted = nil, true
			}
		}
	}
}

func (o *overlay) isCleared(key []byte) bool {
	for _, r := range o.cleared {
		if bytes.Compare(key, r.from) >= 0 && bytes.Compare(key, r.to) < 0 {
			return true
		}
	}
	return false
}

// Get implements View.
func (o *overlay) Get(key []byte) ([]byte, bool, error) {
	if n := o.rows.seek(key); n != nil && bytes.Equal(n.key, key) {
		return n.value, !n.deleted, nil
	}
	if o.isCleared(key) {
		return nil, false, nil
	}
	return o.base.Get(key)
}

// Scan implements View: the sorted merge of the overlay's rows with those rows of
// the base that the overlay neither replaces nor hides.
func (o *overlay) Scan(prefix, after []byte) iter.Seq2[KV, error] {
	return func(yield func(KV, error) bool) {
		own := o.rows.seek(prefix)
		if bytes.Compare(after, prefix) > 0 {
			own = o.rows.seek(after)
		}
		if own != nil && after != nil && bytes.Equal(own.key, after) {
			own = own.next[0]
		}
		inPrefix := func(n *skipNode) bool { return n != nil && bytes.HasPrefix(n.key, prefix) }

		for kv, err := range o.base.Scan(prefix, after) {
			if err != nil {
				yield(KV{}, err)
				return
			}
			for inPrefix(own) && bytes.Compare(own.key, kv.Key) < 0 {
				if !own.deleted && !yield(KV{own.key, own.value}, nil) {
					return
				}
				own = own.next[0]
			}
			if inPrefix(own) && bytes.Equal(own.key, kv.Key) {
				continue // the row of the overlay wins; it comes out in the next round
			}
			if !o.isCleared(kv.Key) && !yield(kv, nil) {
				return
			}
		}
		for ; inPrefix(own); own = own.next[0] {
			if !own.deleted && !yield(KV{own.key, own.value}, nil) {
				return
			}
		}
	}
}

// skipList is a sorted map from keys to rows. A batch may hold a hundred thousand
// rows and be scanned by every operation, so neither inserting nor seeking may be
// linear. Heights come from a counter, not from chance: runs must be reproducible.
type skipList struct {
	head  skipNode
	count uint64
}

const skipHeight = 16 // enough for 2^16 rows at full speed, and far more at a lower one

type skipNode struct {
	key, value []byte
	deleted    bool
	next       []*skipNode // as many as the node is high
}

func newSkipList() skipList {
	return skipList{head: skipNode{next: make([]*skipNode, skipHeight)}}
}

// seek returns the first node whose key is at least key.
func (l *skipList) seek(key []byte) *skipNode {
	n := &l.head
	for level := skipHeight - 1; level >= 0; level-- {
		for n.next[level] != nil && bytes.Compare(n.next[level].key, key) < 0 {
			n = n.next[level]
		}
	}
	return n.next[0]
}

func (l *skipList) put(key, value []byte, deleted bool) {
	var before [skipHeight]*skipNode
	n := &l.head
	for level := skipHeight - 1; level >= 0; level-- {
		for n.next[level] != nil && bytes.Compare(n.next[level].key, key) < 0 {
			n = n.next[level]
		}
		before[level] = n
	}
	if at := n.next[0]; at != nil && bytes.Equal(at.key, key) {
		at.value, at.deleted = value, deleted
		return
	}
	l.count++
	height := min(1+bits.TrailingZeros64(l.count), skipHeight)
	node := &skipNode{key: key, value: value, deleted: deleted, next: make([]*skipNode, height)}
	for level := range height {
		node.next[level] = before[level].next[level]
		before[level].next[level] = node
	}
}
