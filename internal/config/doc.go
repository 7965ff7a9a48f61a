// Package config merges defaults, file, environment and flags into one validated Config; nobody else reads the environment.
//
// There are two configurations. The server's is [Config]: each field is at once a
// flag, a CELLER_… variable and a key of server.toml, under the same words; flags win
// over variables, variables over the file, the file over defaults. The file may be
// Attic's server.toml as it is: what means the same is taken over, and what celler
// does not need gives a [Notice]. The client's is [Client], the servers a person has
// logged in to, kept in config.toml as Attic keeps them.
//
// The files of Nix that celler edits for its user, nix.conf and netrc, are edited
// here too, by pure functions from text to text that keep every byte they do not
// have to change.
//
// # Secrets
//
// A secret comes from a file, a variable, standard input or a systemd credential
// ($CREDENTIALS_DIRECTORY), never from an argument, which everybody on the machine
// can read.
//
// # Concurrency
//
// Values are plain data; functions may be called from any goroutine.
package config
