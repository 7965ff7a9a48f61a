// Package blobtest is the conformance suite, fault injector and delayed-listing simulator for blob.Bucket.
//
//   - [Run] puts every promise of the contract to the test; every driver's own
//     tests call it.
//   - [Faulty] wraps a bucket and loses requests, loses answers, applies writes
//     late, breaks streams, throttles, or lets listings lag, as a script or a
//     seed decides.
//   - [Counter] counts requests, so that tests can hold a scenario to its budget.
//
// # Concurrency
//
// Faulty and Counter may be used by many goroutines. With a seeded Faulty the
// decision for the n-th call depends on n only, so a test that wants to repeat
// itself must make its calls in one order.
package blobtest
