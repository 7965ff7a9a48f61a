//go:build race

package chunkstore_test

// raceDetector is on: everything is ten times slower, and pools forget a part of what
// they are given, on purpose.
const raceDetector = true
