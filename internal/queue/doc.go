// Package queue keeps the store paths that are still to be pushed on the local disk.
//
// Hooks and watchers add entries, [Queue.Add]; one agent, which holds [Queue.Lock],
// reads them and removes each when it is pushed. Nothing else is remembered here: how
// often an entry was tried, and when to try again, are the agent's own business.
//
// # Durability
//
// Add returns nil only after the entry would survive a power failure: its file was
// written and synced under a name that does not count, then renamed, and the directory
// was synced. So an entry is there as a whole or not at all, and what it costs is two
// syncs. With an error the entry is not there; if the directory could not be synced, it
// may be. Removal is not synced: what comes back after a power failure is pushed a
// second time, which changes nothing.
//
// # Layout
//
//	<directory>/
//	  entries/<time>-<random>    one entry, never changed
//	  entries/.<time>-<random>   one that is being written; old ones are removed
//	  damaged/                   what cannot be read, kept for people
//	  roots/<name>               links that protect store paths from collection
//	  seen/<target>              how far a watcher has come: the time of the file
//	  lock                       held by the agent; its text is the process's number
//	  agent.sock                 where the agent listens
//
// time is when the entry was queued, in nanoseconds since 1970, and random are 64
// random bits, both in 16 hexadecimal digits: names sort by time, and nobody has to
// agree with anybody about the next one.
//
// # Entry format
//
// An entry is text, in lines that end with a line feed, in this order:
//
//	CLQ1
//	queued 2026-11-23T13:55:13.123456789Z
//	cache ci                          a cache reference; absent: wherever the agent pushes to
//	no-closure                        absent: push what the paths refer to as well
//	ignore-upstream                   absent: leave out what an upstream cache has
//	deriver /nix/store/…-hello.drv    absent: unknown
//	path /nix/store/…-hello           once for each path, at least once
//	sha256 <64 hexadecimal digits>    of all lines above, this one's start excluded
//
// There is nothing after the last line feed. Whoever meets another first line, or a
// line not listed here, must leave the entry alone: a newer celler wrote it.
//
// # Trust
//
// Whoever can write to the directory can make the agent push any path of the store to
// any server, with the agent's token. A directory that others than its owner can write
// to is refused.
//
// # Concurrency
//
// A Queue may be used by many goroutines, and a directory by many processes.
package queue
