// Package fsck proves that everything the index promises can be read from the bucket, and repairs or withdraws what cannot.
//
// A [Checker] looks at a store in up to three depths:
//
//	rows      every row decodes, and agrees with those it has to do with       reads the index
//	objects   every object of packs, and every table, is there, with its size  LIST
//	bytes     frames have their checksums, chunks their SHA-256                 GET
//
// It may do so next to servers, compactors and collectors. Rows are those of one state, in which
// all of them agree at any time. Objects are deleted only some time after the state has no
// use for them, so one that the state names and the bucket does not have is looked for
// again: if a listing and a GET do not find it, both twice, and a state that was read
// after that still names it, it is lost. Until then nothing is said about it. An error
// is never absence: what could not be looked at is counted as that.
//
// # Repair
//
// What is lost is condemned by its place, like something that nobody needs, so
// that nothing can refer to it any more, and the next push of such chunks stores them
// again. Paths of which nothing complete is left are withdrawn, which makes
// clients push them again, and named. Recipes that cannot be used go, so that the
// next push writes them anew. Rows of chunks that lead to a wrong place go as well. Packs
// whose footer is damaged are written again. Counts are counted.
//
// Each step looks at the state that it changes, and makes the next one possible to repeat:
// a repair that is broken off is finished by the next.
//
// # Scrub
//
// When an object was last read back is noted in the log, by the bucket's clock, by
// whoever read it: a Check that reads, or a server that does so all the time, a little a day
// ([Checker.Scrub]). Both begin with what was not read for longest.
//
// # Memory
//
// A chunk takes two bits, a pack some 60 bytes; of paths and recipes nothing is kept.
//
// # Concurrency
//
// A Checker may be used by many goroutines.
package fsck
