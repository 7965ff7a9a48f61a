// Package compression decodes what Nix compresses NARs and texts with, within bounds, and writes the same formats without effort.
//
// Plain Nix uploads NARs in the compression of its user's choice, and may send texts in
// one. [NewReader] undoes it. The name and the length of what is inside are the business of
// the caller; this package bounds the memory: before a decoder takes any, it says how much
// it needs by what the data announce, and it refuses data that come to need more, or, in xz,
// a new dictionary again and again for next to nothing.
//
// [NewWriter] makes files that any decoder of their format reads, for the few who ask for a
// NAR in the compression in which they once sent it. It spends no time on making them short:
//
//	xz      LZMA2 chunks that are not compressed, in one block; 3 bytes for each 64 KiB
//	bzip2   blocks of 100 kB with flat Huffman codes
//	gzip    the fastest level
//	brotli  the fastest level
//	lz4     the fastest level, in blocks of 256 KiB
//
// lzip, lzma, compress and the older formats are neither read nor written.
//
// # Concurrency
//
// A Reader or Writer belongs to one goroutine at a time. Nothing is started.
package compression
