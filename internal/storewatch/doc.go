// Package storewatch tells which paths become valid in the local Nix store.
//
// The daemon's protocol has no way to ask for that, so there are two sources.
//
// # Events
//
// Whoever makes a store path valid holds a lock meanwhile, the file <path>.lock, and
// removes it when the path has been registered. On Linux the removal of such files is
// heard of at once (inotify); what was locked is then asked about, a batch at a time,
// since a build that failed removes its lock as well.
//
// # Scans
//
// Events can be lost: the kernel's list of them is finite, paths are registered by
// other means than a build, and other systems than Linux have none. So the whole list
// of valid paths is fetched now and then, and at once after a loss, and compared with
// the one before. What no event told of is found there. [Options.Seen] is told how far
// this has come; with [Options.Since] the next watcher looks back to there.
//
// # What is told
//
// Not derivations: they are recipes, of use to nobody without their sources. Sources, paths
// whose name is "source" or ends with "-source", only on demand, as they come from
// elsewhere and can be fetched again. A path may be told twice, and may be gone by the
// time it is told.
//
// # Concurrency
//
// [Run] blocks until its context ends, and waits for the goroutine that reads events.
// The callbacks are called by the goroutine of Run, one at a time.
package storewatch
