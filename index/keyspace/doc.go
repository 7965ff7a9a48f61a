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
//	'b' epoch, 4 B  rand, 8 B                   buried object
//	'c' chunk id, 32 B                          chunk
//	'd' cache id, 4 B                           cache that is destroyed, or being restored
//	'e' cache id, 4 B  file hash, 32 B          file that was uploaded by plain Nix
//	'f' NAR hash, 32 B  cache id, 4 B  hash part, 20 B   former NAR of a path
//	'g' day, 4 B  cache id, 4 B                 growth of a cache on a day
//	'h' generation, 4 B  serial, 4 B            touch
//	'i' cache id, 4 B  name  0                  pin
//	'i' cache id, 4 B  name  0  number, 4 B     revision of a pin
//	'j' NAR hash, 32 B                          listing of a NAR
//	'k' epoch, 4 B  rand, 8 B                   pack
//	'l' cache id, 4 B  hash part, 20 B          last use of a path
//	'm'                                         mark: the collection that runs
//	'n' NAR hash, 32 B                          how many paths name a NAR
//	'o' cache id, 4 B  day, 4 B  hash part, 20 B   last use of a path, by day
//	'p' cache id, 4 B  hash part, 20 B          path
//	'q' epoch, 4 B  rand, 8 B                   object that packs were moved into
//	'r' NAR hash, 32 B                          recipe, head
//	'r' NAR hash, 32 B  tag, 8 B  part, 2 B     recipe, a further part
//	's' name                                    secret
//	't' cache id, 4 B                           totals of a cache; of the store for 0
//	'u' name                                    counter
//	'v' epoch, 4 B  rand, 8 B                   when an object was last read back
//	'w' NAR hash, 32 B                          NAR that no path names
//	'x' epoch, 4 B  rand, 8 B                   what is condemned in a pack
//	'y' day, 4 B                                store day that is over
//	'z'                                         the last round of collection
//	'S' cache id, 4 B  kind, 1 B  name  0       side object: a log and the like
//
// '!' belongs to the log's own bookkeeping and never appears here; '~' to the numbers of
// what a server has sent to another to commit (wal.LanesKey).
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
//	chunk      1 | epoch | rand, 8 B | index                        without a proof
//	           2 | epoch | rand, 8 B | index | proof, 8 B
//	pack       the layout of package chunk, which begins with its version
//	recipe     1 | parts | served size | tag, 8 B if parts > 1 | recipe of package chunk, up to 256 KiB of it
//	recipe, k  1 | the next up to 256 KiB
//	secret     1 | created | the rest is the secret
//	counter    1 | number
//	condemned  1, or 2 to be purged | dead bytes | count, ranges of (gap, length)
//	destroyed  1 | destroyed at | name
//	           2 | day on which a restore began | began at | name
//	nar        1 | paths | NAR size | served size
//	unreferenced  1 | day | flags
//	former     1 | day
//	last-use   1 | day
//	use        1
//	totals     1 | count | numbers in the order of Totals, without zeros at the end
//	growth     1 | paths added | bytes added | paths removed | bytes removed
//	day        1 | ended | slot | upload epoch
//	mark       1 | generation | flags | touches
//	touch      1 | flags | cache id, 4 B, hash part, 20 B if a path | NAR hash, 32 B if a recipe
//	object     1 | length | count, packs of (epoch, 4 B; rand, 8 B), big-endian
//	buried     1 | day | length
//	pin        1 | created | flags | revisions to keep | days to keep | number of the newest
//	revision   1 | made at | day | store path | by
//	round      1 | ended | the rest is the summary
//	upload     1 | day | flags | NAR hash, 32 B | NAR size | file size | compression | hash part, 20 B if claimed
//	listing    1 | the rest is the listing, a zstd frame
//	side       1 | day | flags | size | owner kind, 1 B | owner: none, 20 B or 32 B by its kind
//	             | SHA-256 of the text, 32 B, served size if stored; else the rest is the text, a zstd frame
//	verified   1 | at | flags
//
// Bit 0 of a cache's flags: public. Bit 1: retention is set for this cache; the
// field is there only then. Ranges are disjoint, ascending and do not touch; gap
// is the distance from the end of the one before. Flags of an unreferenced NAR: bit 0
// to be purged, bit 1 without waiting. Bit 0 of a mark's flags: it is running. Flags of
// a touch: bit 0 a path, bit 1 a recipe. Bit 0 of a pin's flags: keep all revisions. Bit 0 of
// an upload's flags: claimed. Bit 0 of a side object's: stored as chunks. Bit 0
// of those of a verified object: it is damaged.
//
// # Store days
//
// What lives as long as it is used is measured in store days, which are numbered from
// 1. Rows say on which day something happened; only the row of a day says when
// it ended, by the clock of the bucket. The length of a day is a policy: infrequent
// ends make things seem younger than they are, never older.
//
// # Concurrency
//
// Everything is a plain value or a pure function.
package keyspace
