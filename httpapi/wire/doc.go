// Package wire holds the request and response bodies shared by httpapi and client.
//
// # Contract
//
// The bodies of the Attic v1 API are kept to the byte where stock clients care: names,
// spellings of the enumerations, which fields may be absent. Unknown fields are
// ignored everywhere, on both sides, so that either may learn new ones first.
//
// A server decodes with the Decode functions, which tell text that is not JSON
// ([SyntaxError]) from JSON of the wrong shape ([ShapeError]), because the two have
// different status codes. Keys are matched by their exact spelling and null is the
// same as absent. A client decodes with encoding/json.
//
// # Upload
//
// The body of an upload is a plain NAR. What it is stands in a header, or, if it is
// long, before the NAR in the same body, with its length in another header:
//
//	X-Attic-Nar-Info: {"cache":…}                    NAR …
//	X-Attic-Nar-Info-Preamble-Size: 5120             {"cache":…} NAR …
//
// Each header also exists with Celler in the place of Attic.
//
// # Concurrency
//
// Everything here is a plain value.
package wire
