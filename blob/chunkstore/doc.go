// Package chunkstore stores each chunk once under its hash and streams recipes back into NARs.
package chunkstore
