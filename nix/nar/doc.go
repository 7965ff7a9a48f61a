// Package nar reads, writes, verifies and lists Nix archives as streams, refusing everything Nix would refuse.
//
// A NAR is the canonical serialisation of a file tree: what it may contain is so
// narrow that equal trees give equal bytes, and the SHA-256 of those bytes is
// what the Nix world signs. A decoder that is lenient therefore accepts archives
// that no Nix would have written. This one is not: it refuses names that are
// empty, "." or "..", or hold a slash or NUL; names out of order or given twice;
// padding that is not zero; tokens in the wrong place; data after the end; and
// an end before the end, wherever it falls.
//
// # Format
//
// Everything is a string: its length (little-endian), its bytes, and zeros up to
// a multiple of eight.
//
//	+--------+-----------+---------------+
//	| length | bytes     | zeros         |
//	| 8 B    | length B  | 0 to 7 B      |
//	+--------+-----------+---------------+
//
//	nar       = "nix-archive-1" node
//	node      = "(" "type" ( regular | symlink | directory ) ")"
//	regular   = "regular" [ "executable" "" ] "contents" <bytes>
//	symlink   = "symlink" "target" <target>
//	directory = "directory" { "entry" "(" "name" <name> "node" node ")" }
//
// The names of a directory increase strictly by bytes.
//
// # Reading
//
// One grammar machine serves two front ends: [Reader], from which entries are
// pulled, and [Verifier], an [io.Writer] into which bytes are pushed in pieces of
// any size. Both give the same verdict, with the same offset, on the same bytes.
// Neither allocates for an entry, and neither allocates by a length it has read:
// names, targets and depth are bounded ([MaxName], [MaxTarget], [MaxDepth]) and
// contents are passed through.
//
// # Concurrency
//
// A Reader, Writer or Verifier belongs to one goroutine at a time. [Dump] starts
// a few goroutines that read ahead and waits for all of them.
package nar
