package config

// ParseFile is parseFile, for fuzzing without files.
var ParseFile = parseFile
