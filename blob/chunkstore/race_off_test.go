//go:build !race

package chunkstore_test

const raceDetector = false
