// Package keyspace is the state's schema: one file per row type, with its key, its value, and how both are validated.
//
// The state that the log builds is a sorted map from byte strings to byte
// strings. This package is the only place that knows which strings those are. A
// row type has four functions, AppendXKey, DecodeXKey, AppendX and DecodeX, a
// Valid method where a caller could fill in nonsense, and nothing else: no row
// knows where it is kept.
//
// # Keys
//
// The first byte says which row it is. Numbers in keys are big-endian, so that
// rows sort as their numbers do.
//
//	'a' name                                    cache
//	'c' chunk id, 32 B                          chunk
//	'd' cache id, 4 B                           destroyed cache whose paths are not all gone
//	'k' epoch, 4 B  rand, 8 B                   pack
//	'p' cache id, 4 B  hash part, 20 B          path
//	'r' NAR hash, 32 B                          recipe, head
//	'r' NAR hash, 32 B  tag, 8 B  part, 2 B     recipe, a further part
//	's' name                                    secret
//	'u' name                                    counter
//	'x' epoch, 4 B  rand, 8 B                   what is condemned in a pack
//
// '!' belongs to the log's own bookkeeping and never appears here.
//
// # Values
//
// The first byte of every value is the version of that row type; a decoder
// refuses versions it does not know. Integers are minimal unsigned LEB128
// varints, texts have their length before them, times are milliseconds since
// 1970 (0: none), and nothing may follow the last field. One row has exactly one
// encoding: what a decoder accepts is what its encoder writes.
//
//	cache      1 | id | created | flags | priority, zigzag | retention, seconds | store dir | secret key | count, key names
//	path       1 | created | name | store dir, "" for /nix/store | NarHash, 32 B | NAR size | file size
//	             | count, references of (hash part, 20 B; name) | deriver | system | ca | by | count, sigs | sig | key id, 8 B if sig
//	chunk      1 | epoch | rand, 8 B | index
//	pack       the layout of package chunk, which begins with its version
//	recipe     1 | parts | served size | tag, 8 B if parts > 1 | recipe of package chunk, up to 256 KiB of it
//	recipe, k  1 | the next up to 256 KiB
//	secret     1 | created | the rest is the secret
//	counter    1 | number
//	condemned  1 | dead bytes | count, ranges of (gap, length)
//	destroyed  1 | destroyed at | name
//
// Bit 0 of a cache's flags: public. Bit 1: retention is set for this cache; the
// field is there only then. Ranges are disjoint, ascending and do not touch; gap
// is the distance from the end of the one before.
//
// # Concurrency
//
// Everything is a plain value or a pure function.
package keyspace
