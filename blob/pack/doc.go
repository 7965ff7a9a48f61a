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
// An object that packs were moved into, without what was dead of them, has a footer
// of version 2. Chunks keep the positions they had in their packs, for that is how
// recipes name them:
//
//	+---------+---------+------+-------+---------------------------------------------------+
//	| version | epoch   | rand | packs | packs x                                           |
//	| 1 B (2) | 4 B     | 8 B  |       | epoch 4 B, rand 8 B, chunks, frames, frames x ... |
//	+---------+---------+------+-------+---------------------------------------------------+
//
//	frame: gone chunks before it, chunks, size, CRC-32C 4 B, chunks left, chunks left x
//	       (gone chunks before it in the frame, kind 1 B, length, id 32 B)
//
// The chunks of a pack and of a frame count those that are gone. A frame of which
// some are gone was encoded again and holds the others alone. Frames lie back to back
// in the order of the table, and no pack is that of the object's own name.
//
// # Concurrency
//
// A [Builder] or [Gatherer] belongs to one goroutine at a time. Everything else is a function.
package pack
