// Package pack is the container format that holds many chunks in one immutable object.
//
// A pack is zstd frames back to back, then a footer that says what is in them.
// Each frame holds one or more whole chunks; how many is up to the writer. The
// bytes of neighbouring frames are a valid zstd stream as they lie, so a reader
// may copy them out without decoding. The footer alone is enough to rebuild an
// index: it names the pack, its frames and every chunk with its id.
//
// # Format
//
//	+---------+---------+- ... -+--------+---------------+------------------+--------+
//	| frame 0 | frame 1 |       | footer | footer length | CRC-32C (footer) | "CLP1" |
//	|         |         |       |        | 4 B           | 4 B              | 4 B    |
//	+---------+---------+- ... -+--------+---------------+------------------+--------+
//
// Integers are little-endian where a width is given, else minimal unsigned
// varints. The footer:
//
//	+---------+---------+------+--------+-------------------------+-------------------+
//	| version | epoch   | rand | frames | frames x                | chunks x          |
//	| 1 B (1) | 4 B     | 8 B  |        | size, CRC-32C 4 B,      | kind 1 B, length, |
//	|         |         |      |        | chunks                  | id 32 B           |
//	+---------+---------+------+--------+-------------------------+-------------------+
//
// Frame 0 begins at offset 0 and every other one where the one before it ends.
// The chunks of frame 0 come first, in the order of their plain bytes; a chunk
// begins where the one before it ends. So offsets need not be stored. A frame's
// checksum covers its compressed bytes. Kind 0 is a chunk whose plain bytes are
// stored as they are; there is no other kind yet, and a reader refuses what it
// does not know.
//
// # Concurrency
//
// A [Builder] belongs to one goroutine at a time. Everything else is a function.
package pack
