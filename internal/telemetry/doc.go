// Package telemetry builds the logger, the metrics set and the tracer that others receive.
//
// Three constructors, one for each: [NewLogger], [NewMetrics], [NewTracing]. Nothing
// here is global; what they return is passed down in Options. Without an endpoint to
// send traces to, [Tracing] does nothing and costs nothing.
//
// # Concurrency
//
// Everything returned may be used by many goroutines. A Tracing that exports owns the
// goroutines of its exporter; Close sends what is left and waits for them.
package telemetry
