// Package chunk names chunks and recipes and finds content-defined cut points; each cut profile is a frozen pure function.
//
// Everything here is a plain value or a pure function of its arguments: no I/O,
// no goroutines, no state. The keyspace, the client and the chunk store share
// these types, so that none of them needs the others.
//
// # Profiles
//
// A [Profile] is part of the durable format of a bucket. Two nodes that cut the
// same bytes with the same profile find the same chunks, today and in ten years;
// a profile may therefore never be changed, only joined by another one.
//
// # Recipe format
//
// All integers are minimal unsigned LEB128 varints unless a width is given;
// fixed-width integers are little-endian.
//
//	+---------+------+---------+-------+-----------------+------+----------------------+--------+
//	| version | size | NarHash | packs | packs x         | runs | runs x               | served |
//	| 1 B (1) |      | 32 B    |       | epoch, rand 8 B |      | pack, ~first, count  |        |
//	+---------+------+---------+-------+-----------------+------+----------------------+--------+
//
// pack is a position in the pack table before it, whose packs stand in the order
// of their first use. ~first is the zigzag difference to the chunk after the
// last run in the same pack (to chunk 0 for the first), so that a NAR pushed at
// once costs one byte there. served is
//
//	+---------+------+----------+--------------------+------------+----------+
//	| encoder | size | segments | segments x         | known      | FileHash |
//	| 1 B     |      |          | compressed length  | 1 B (0, 1) | 32 B, 0  |
//	+---------+------+----------+--------------------+------------+----------+
//
// A recipe that was joined from parts has version 2, and before served
//
//	+--------+------------------------------+
//	| breaks | breaks x                     |
//	|        | chunks since the last (or 0) |
//	+--------+------------------------------+
//
// with at least one break.
//
// # Names and proofs
//
// Where a chunk is spoken of without being sent, a [Ref] stands for it: the beginning of
// its id, and a [Proof] that only somebody can make who has the chunk. See
// docs/protocol.md and docs/adr/0012-delta-push.md.
//
// # Layout format
//
//	+---------+-------+---------+-------+--------+-----------------------------+-----------+
//	| version | epoch | rand    | bytes | frames | frames x                    | sizes x   |
//	| 1 B (1) |       | 8 B     |       |        | gap, size, CRC-32C, chunks  | plain len |
//	+---------+-------+---------+-------+--------+-----------------------------+-----------+
//
// gap is the distance from the end of the frame before (zero: they lie back to
// back), the checksum has 4 bytes, and there are as many sizes as the frames
// have chunks together.
//
// A pack whose frames were moved into another object has version 2:
//
//	+---------+-------+---------+--------+---------+-------+--------+--------+----------+---------+
//	| version | epoch | rand    | object | object  | bytes | footer | frames | frames x | sizes x |
//	| 1 B (2) |       | 8 B     | epoch  | rand 8 B|       |        |        |          |         |
//	+---------+-------+---------+--------+---------+-------+--------+--------+----------+---------+
//
// bytes is the length of that object, footer the offset of its footer. A frame is
// chunks, size, gap, CRC-32C; where nothing is left of a frame, size is zero and the
// rest is left out, and such frames, when neighbours, are one. A size is the plain
// length of a chunk, or a zero and the number of chunks from there on of which
// nothing is left (holes). A frame with holes and other chunks holds the others
// alone; which chunks shared a frame at first is what the served form depends on,
// so that is kept.
package chunk
