// Package chunkstore stores each chunk once under its hash and streams recipes back into NARs.
//
// [Store.Write] cuts a NAR, asks the [Directory] which chunks are known, puts the
// new ones into frames and the frames into packs, and returns a recipe.
// [Store.Open] turns a recipe into the served form: a zstd stream that is put
// together, as far as possible, from stored frames as they lie in the bucket.
//
// # The served form
//
// A zstd stream may be any number of frames. Walking the chunks of a NAR in
// order, a sequence that is exactly one stored frame is copied; what lies between
// such frames (chunks that share a frame with others which this NAR does not
// have) is decoded and encoded again, in stretches of at most 512 KiB cut at chunk
// boundaries. The encoder is frozen and numbered, and the length of every stretch
// is computed when the NAR is written and kept in its recipe. So the length of the
// served form, its entity tag and its byte at any offset are known before the
// first request is sent, are the same on every node, and do not change:
//
//	stored     | frame 7   | frame 8   | frame 9   |       pack A, an older NAR
//	           | a  b  c   | d  e  f   | g  h      |
//	stored     | frame 0 |                                 pack B, this NAR
//	           | x  y    |
//	NAR          a  b  c     d  x  y  f    g  h
//	served     | frame 7   | 1 | frame 0 | 2 | frame 9   | 1, 2: encoded again
//
// Every byte is checked between the bucket and the client: a frame against the
// CRC-32C in its pack's layout before any of it is handed out, a chunk that was
// decoded against its id as well. See docs/adr/0009.
//
// # Requests
//
// Frames of all Writes share packs, which are uploaded when they are full or when
// a Write waits for one; while an upload is under way the next pack gathers, for a
// second at most (see packer).
// A reader joins neighbouring frames to one GET of up to 4 MiB and keeps 16 MiB
// under way. A GET that breaks goes on from the last good frame; one that is much
// slower than others were gets company.
//
// # Moving and removing
//
// Chunks die, packs do not change. [Store.Rewrite] copies what is left of packs into new
// objects; whole frames as they are, so that no served form changes, the others encoded
// again without what is dead. Nothing refers to the copy until the caller has put the
// new layouts in place of the old ones. A reader that was at work on the old object
// looks the layouts up again when it finds it gone, and goes on where it was.
//
// [Store.Objects], [Store.Absent] and [Store.DeleteObjects] are what a collector needs of
// the bucket, [Store.Verify] and [Store.Footer] what a check or a recovery does. None of
// them decides what is dead.
//
// # Resident copies
//
// A NAR that was read from its first byte to its last, or written with all bytes
// at hand, stays behind as a file of its served form. Those files may vanish at
// any time.
//
// # Memory
//
// Writes take a slot each, small or large, before they read; packs have slots of
// their own; readers draw on a budget; a Rewrite or Verify takes one object and two GETs
// of 4 MiB. A NAR of any size needs no more than one of
// a few MiB, but for its recipe.
//
// # Concurrency
//
// A Store may be used by many goroutines. The goroutines it starts end before
// [Store.Close] returns, those of a reader before its Close does. No lock is held
// during I/O, and no two at a time.
package chunkstore
