package chunkstore

import (
	"container/list"
	"sync"
)

// lru keeps the values used last, at most a fixed number of them.
type lru[K comparable, V any] struct {
	most int

	mu    sync.Mutex // guards items and order
	items map[K]*list.Element
	order *list.List // of lruItem[K, V], used last in front
}

type lruItem[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](most int) *lru[K, V] {
	return &lru[K, V]{most: most, items: make(map[K]*list.Element), order: list.New()}
}

func (l *lru[K, V]) get(key K) (V, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.items[key]
	if !ok {
		var zero V
		return zero, false
	}
	l.order.MoveToFront(e)
	return e.Value.(lruItem[K, V]).value, true
}

// put adds a value unless there is one, and returns the one that is there then.
func (l *lru[K, V]) put(key K, value V) V {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.items[key]; ok {
		l.order.MoveToFront(e)
		return e.Value.(lruItem[K, V]).value
	}
	l.items[key] = l.order.PushFront(lruItem[K, V]{key, value})
	for len(l.items) > l.most {
		last := l.order.Back()
		delete(l.items, l.order.Remove(last).(lruItem[K, V]).key)
	}
	return value
}

func (l *lru[K, V]) remove(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.items[key]; ok {
		l.order.Remove(e)
		delete(l.items, key)
	}
}
