// Package wal is the only source of truth: a totally ordered log of key-value
// effects, one immutable object per slot, plus ROOT, the one object that changes.
package wal
