// Package ui prints progress, tables and errors for people, or JSON events for machines.
//
// A [Printer] holds the two streams and nothing else: data goes to standard
// output, everything meant for a person goes to standard error, prefixed with the
// program's name, in lower case and without a full stop. With JSON chosen, data is
// one JSON value a line and progress is a line of JSON an event.
//
// [Progress] shows several things going on at once. On a terminal it redraws one
// line per worker and a total; elsewhere it prints one plain line whenever something
// is finished, so that a CI log stays readable.
//
// # Concurrency
//
// A Printer and a Progress may be used by many goroutines; one mutex in the Printer
// keeps lines whole. A Progress on a terminal owns one goroutine, which redraws;
// Close stops it and waits for it.
package ui
