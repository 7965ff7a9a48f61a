package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/celler/celler/internal/ui"
)

// parseWords tells what the program makes of the words of a command, without its name.
func parseWords(t *testing.T, words []string) error {
	t.Helper()
	var c cli
	a := &app{ui: ui.New(ui.Options{Stdout: io.Discard, Stderr: io.Discard})}
	parser, err := newParser(&c, io.Discard, io.Discard, func(int) {}, kong.Bind(a))
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(words)
	return err
}

// Every command that a document shows is one that the program understands; of those in the
// middle of a sentence, which may be cut short, each verb and each flag.
func TestDocumentedCommands(t *testing.T) {
	var names []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "changelog/unreleased/*.md"} {
		found, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	line := regexp.MustCompile(`(?m)^(?:    )?(?:bin/)?celler +([a-z].*)$`)
	span := regexp.MustCompile("`celler\\s+([a-z][^`]*)`")
	lines, spans := 0, 0
	for _, name := range names {
		if filepath.Base(name) == "cli.md" { // made from the program
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			command, _, _ := strings.Cut(m[1], "  #")
			if strings.Contains(m[1], "`") || !strings.HasPrefix(m[0], "    ") && !strings.Contains(command, "--") {
				continue // a line of a sentence
			}
			lines++
			if err := parseWords(t, shellWords(command)); err != nil {
				t.Errorf("%s: celler %s: %v", name, command, err)
			}
		}
		for _, m := range span.FindAllStringSubmatch(string(text), -1) {
			spans++
			err := parseWords(t, shellWords(strings.NewReplacer("[", "", "]", "").Replace(m[1])))
			if err != nil && (strings.Contains(err.Error(), "unknown flag") || strings.Contains(err.Error(), "unexpected argument")) {
				t.Errorf("%s: celler %s: %v", name, m[1], err)
			}
		}
	}
	if lines < 10 || spans < 50 {
		t.Errorf("%d commands on lines of their own and %d in sentences were found: the documents have more", lines, spans)
	}
}

// shellWords splits a command as a shell would that knows nothing but quotes.
func shellWords(command string) []string {
	var words []string
	for _, m := range regexp.MustCompile(`(?:'[^']*'|"[^"]*"|[^\s'"])+`).FindAllString(command, -1) {
		words = append(words, strings.NewReplacer("'", "", `"`, "").Replace(m))
	}
	return words
}
