// Package fileblob implements blob.Bucket on a local directory.
//
// An object is a regular file whose path below the directory is its key, so a
// bucket can be looked at, copied and backed up with ordinary tools. Two names
// that are not keys belong to the driver:
//
//	,tmp/<owner>.lock   locked for as long as the process that made it lives
//	,tmp/<owner>.<n>    a body on its way to becoming an object
//	,lock               held around compare and rename by Swap
//
// # Durability
//
// A file is written and synced under ",tmp" before it gets its name in one step
// (link for Create, which fails if the name is taken; rename for Swap and Put),
// and the directory that now holds the name is synced before the call returns.
// A reader therefore never sees a torn object, and after a power cut everything
// that was acknowledged is there. Directories made on the way are synced into
// their parents, also those another process made a moment ago.
//
// Bodies left behind by a killed process are removed by the next Open, and only
// then: the owner's lock, which dies with the process, tells that nobody will
// come back for them.
//
// # Keys and paths
//
// The map from keys to paths is the identity, hence injective, on file systems
// that distinguish case and bytes. A key that is the directory of another
// ("a" beside "a/b") is refused with an error, as the contract allows; an empty
// directory that is left when all its objects are gone still counts. All access
// goes through an os.Root, so that no key and no symbolic link leads outside.
//
// A directory that is moved away, or replaced, while it is open takes no more writes
// and is not believed when it lacks an object: who opens the same path would see
// another bucket.
//
// # Tags
//
// The tag is a hash of the content. It costs reading the object, but survives
// backups and restores, and cannot repeat for another content as inode numbers
// and clocks do. Put, which is for packs and the like, does not tell it: it is
// only hashed what somebody reads whole or will swap.
//
// # Concurrency
//
// A Bucket may be used by many goroutines, and a directory by many processes of
// one machine. Over a network file system this holds if it has working locks
// (flock), atomic link and rename, and close-to-open consistency does not delay
// what readers see; the probe tells. There are two locks: the channel swapping,
// taken first, lets one goroutine of this process at a time wait for the file
// lock ",lock".
package fileblob
