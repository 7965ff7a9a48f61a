// Package twosha computes two SHA-256 at a time on one core.
//
// An instruction of SHA-256 takes four cycles until the next one of the same
// computation can begin, and a core could begin one every two cycles. So one
// computation leaves half of the core idle, and two that are unlike each other
// but for their pace fill it: that takes hardly longer than one of them.
//
// Whatever is fed to crypto/sha256 in the standard library goes there. This is
// for who hashes everything twice, and with states, not digests: padding and what
// does not fill a block are the business of the caller.
//
// Where the processor has no such instructions, or is none of ours, [Blocks]
// computes the same by crypto/sha256, one after the other, and [Paired] says so:
// then it has no advantage.
//
// # Concurrency
//
// There is nothing shared.
package twosha
