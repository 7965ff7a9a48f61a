// Package index is a disposable Pebble copy of the log's state: bootstrapped from a snapshot, advanced by apply, never written otherwise.
package index
