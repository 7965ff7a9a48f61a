package auth

import (
	"crypto/sha256"
	"sync"
)

// memoTokenBytes is the longest token that is remembered, so that the memo's size is
// bounded in bytes too: its claims cannot be much longer than itself.
const memoTokenBytes = 16 << 10

// memo remembers the claims of tokens whose signature was checked, in two
// generations: when the young one is full it becomes the old one, and the old one is forgotten. A token in
// use is carried over, so the memo keeps what is used at a cost of two map accesses.
//
// Only verified tokens are kept: a stranger cannot fill it.
type memo struct {
	limit int // per generation; 0 remembers nothing

	mu         sync.Mutex // guards young and old
	young, old map[[sha256.Size]byte]Claims
}

func newMemo(tokens int) *memo {
	return &memo{limit: (tokens + 1) / 2, young: map[[sha256.Size]byte]Claims{}}
}

func (m *memo) claims(token string, read func() (Claims, error)) (Claims, error) {
	if m.limit == 0 || len(token) > memoTokenBytes {
		return read()
	}
	id := sha256.Sum256([]byte(token))
	m.mu.Lock()
	c, ok := m.young[id]
	if !ok {
		if c, ok = m.old[id]; ok {
			m.keep(id, c)
		}
	}
	m.mu.Unlock()
	if ok {
		return c, nil
	}
	c, err := read()
	if err != nil {
		return Claims{}, err
	}
	m.mu.Lock()
	m.keep(id, c)
	m.mu.Unlock()
	return c, nil
}

// keep is called with mu held.
func (m *memo) keep(id [sha256.Size]byte, c Claims) {
	if len(m.young) >= m.limit {
		m.old, m.young = m.young, make(map[[sha256.Size]byte]Claims, m.limit)
	}
	m.young[id] = c
}
