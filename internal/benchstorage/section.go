package main

import (
	"bytes"
	"fmt"
	"os"
)

// replaceSection puts text between the lines "<!-- name:begin -->" and
// "<!-- name:end -->" of a file.
func replaceSection(file, name string, text []byte) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := []byte("<!-- "+name+":begin -->\n"), []byte("<!-- "+name+":end -->")
	from, to := bytes.Index(old, begin), bytes.Index(old, end)
	if from < 0 || to < from {
		return fmt.Errorf("write the table into %s: no line %q with %q after it", file, bytes.TrimSpace(begin), end)
	}
	from += len(begin)
	text = append(append(bytes.Clone(old[:from]), text...), old[to:]...)
	return os.WriteFile(file, text, 0o644)
}
