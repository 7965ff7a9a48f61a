// Command celler is a Nix binary cache that needs nothing but a bucket: the server,
// the client that pushes to it, and the tools to administer both, in one binary.
//
// This package holds flags, wiring and exit codes. main.go runs the command line of
// cli.go; every verb has its own file; exit.go turns errors into exit codes, sentences
// and hints, and nothing else does.
package main
