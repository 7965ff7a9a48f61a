// Package nix parses, validates and prints the texts of the Nix binary-cache protocol: store paths, hashes, narinfo, signatures, nix-cache-info.
//
// It is pure: nothing here opens a file, a socket or the clock, and it imports
// the standard library only. Every value is either comparable and usable as a
// map key ([HashPart], [StorePath], [Hash], [Signature], [SecretKey],
// [PublicKey]) or a plain struct with exported fields ([NarInfo], [CacheInfo]).
//
// # Strictness
//
// What Nix refuses is refused. Beyond that a text is refused when two readers
// could take it for different things: a store path without a dash after its
// hash part, a narinfo line without a space after the colon (Nix would swallow
// a character or the next line), a key given twice, a secret key whose public
// half does not belong to its seed. What only looks foreign is kept: unknown
// narinfo keys, signatures of algorithms we cannot check.
//
// # Texts
//
//	store path       <store dir> "/" <hash part: 32 nix32> "-" <name: 1..211>
//	hash             <algo> ":" (<hex> | <nix32> | <base64>)  or  <algo> "-" <base64>
//	signature, keys  <key name> ":" <base64>
//	fingerprint      "1;" <store path> ";" <NarHash, nix32> ";" <NarSize> ";" <reference> ("," <reference>)*
//	narinfo          (<key> ": " <value> "\n")*
//	nix-cache-info   (<key> ":" <value> "\n")*
//
// nix32 is Nix's base 32: the digits and the lower-case letters without e, o, t
// and u, least significant digit last.
//
// # Concurrency
//
// All values are immutable once made, except that NarInfo and CacheInfo belong
// to whoever holds them. No function keeps what it was given.
package nix
