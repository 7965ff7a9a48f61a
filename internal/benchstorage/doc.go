// Command benchstorage measures how NARs of three generations lie in the bucket and what serving them costs.
//
// The generations are Debian packages as store paths: an older version (a); the
// same bytes rebuilt, so that every store path mentioned in a file has another
// hash (b); and a newer version with a third set of hashes (c). Every NAR of a is
// written before any of b, and so on, into a store in memory; then the NARs of
// each generation are pulled from a store that has nothing at hand.
//
// "make bench-storage" runs it. The packages come through apt-get download and
// stay, with the NARs made from them, below -dir. The peers are zstd -3 and
// xz -6 of every NAR whole, and chunks of 64 KiB each in a frame of its own.
//
// CPU is user and system time of the process, garbage collection and all. The
// bucket is memory, so what an S3 client adds is not in it: that is proportional
// to the requests, which are printed.
package main
