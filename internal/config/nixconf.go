package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// NixConf is the text of a nix.conf, edited without touching what it does not have
// to: comments, includes, odd spacing, line ends and unknown settings stay as they are.
//
// Nix reads the file line by line: a # starts a comment, the rest is split at white
// space into a name, "=" and words; "include FILE" and "!include FILE" read another
// file in their place; "extra-NAME" adds words to NAME; of two assignments the later
// wins.
type NixConf struct {
	lines    []string         // each with its line end
	included map[int][]string // by the line that includes them, the lines of other files
}

// ParseNixConf takes the text of a nix.conf; no text is wrong, only ineffective.
func ParseNixConf(text string) *NixConf {
	return &NixConf{lines: strings.SplitAfter(text, "\n")}
}

// String returns the text of the file.
func (n *NixConf) String() string { return strings.Join(n.lines, "") }

// Follow reads what the file includes, path being where it is itself. What cannot be read
// counts as empty.
func (n *NixConf) Follow(path string) {
	n.included = make(map[int][]string)
	files := maxIncludes
	for i, line := range n.lines {
		if file, ok := includedFile(line, path); ok {
			n.included[i] = readIncluded(file, &files)
		}
	}
}

// maxIncludes bounds how many files are read, for files can include each other.
const maxIncludes = 64

// readIncluded returns the lines of a file, with those of the files it includes in place.
func readIncluded(path string, files *int) []string {
	if *files == 0 {
		return nil
	}
	*files--
	body, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(body)) {
		if file, ok := includedFile(line, path); ok {
			lines = append(lines, readIncluded(file, files)...)
			continue
		}
		lines = append(lines, line)
	}
	return lines
}

// includedFile reads a line of the file at path as one that includes another.
func includedFile(line, path string) (string, bool) {
	f := nixWords(stripComment(line))
	if len(f) != 2 || f[0] != "include" && f[0] != "!include" {
		return "", false
	}
	if filepath.IsAbs(f[1]) {
		return f[1], true
	}
	return filepath.Join(filepath.Dir(path), f[1]), true
}

// Words returns the words the list setting name has by this file and what it includes.
func (n *NixConf) Words(name string) []string {
	var words []string
	for _, s := range n.effective(name) {
		words = append(words, nixWords(s.value)...)
	}
	return words
}

// Value returns the value of the last assignment to name.
func (n *NixConf) Value(name string) (string, bool) {
	s, ok := n.last(name)
	return strings.Join(nixWords(s.value), " "), ok
}

// AddWord makes word part of the list setting name and reports whether it had to: it
// goes to the end of the last line that counts; if no line does, or another file follows
// that may have the last word, a new one with "extra-" at its front is added, which keeps
// what the system's own nix.conf says.
func (n *NixConf) AddWord(name, word string) bool {
	if slices.Contains(n.Words(name), word) {
		return false
	}
	settings := n.effective(name)
	if len(settings) == 0 || n.includesFrom(settings[len(settings)-1].line) {
		n.append("extra-" + name + " = " + word)
		return true
	}
	at := settings[len(settings)-1].line
	line := n.lines[at]
	end := valueEnd(line)
	n.lines[at] = line[:end] + " " + word + line[end:]
	return true
}

// RemoveWord takes word out of every line of this file that gives it to the list setting
// name, with the space before it, and reports whether there was one.
func (n *NixConf) RemoveWord(name, word string) bool {
	removed := false
	for _, s := range n.effective(name) {
		for !s.included {
			line := n.lines[s.line]
			from, to := wordSpan(line, word)
			if from < 0 {
				break
			}
			n.lines[s.line] = line[:from] + line[to:]
			removed = true
		}
	}
	return removed
}

// Set gives name one value, in place of its last assignment or on a new line, and
// reports whether the file changed.
func (n *NixConf) Set(name, value string) bool {
	have, ok := n.last(name)
	if ok && strings.Join(nixWords(have.value), " ") == value {
		return false
	}
	if !ok || n.includesFrom(have.line) {
		n.append(name + " = " + value)
		return true
	}
	line := n.lines[have.line]
	eq := strings.IndexByte(line, '=')
	n.lines[have.line] = line[:eq+1] + " " + value + line[valueEnd(line):]
	return true
}

// nixSetting is an assignment.
type nixSetting struct {
	name, value string
	line        int  // where it is, or where the file it is in is included
	included    bool // it is in another file
}

// settings yields all assignments in the order in which Nix reads them.
func (n *NixConf) settings(yield func(nixSetting) bool) {
	for i, line := range n.lines {
		if name, value, ok := splitSetting(line); ok && !yield(nixSetting{name, value, i, false}) {
			return
		}
		for _, line := range n.included[i] {
			if name, value, ok := splitSetting(line); ok && !yield(nixSetting{name, value, i, true}) {
				return
			}
		}
	}
}

// includesFrom reports whether a line, or one after it, includes another file.
func (n *NixConf) includesFrom(at int) bool {
	return slices.ContainsFunc(n.lines[at:], func(line string) bool {
		_, ok := includedFile(line, "")
		return ok
	})
}

// effective returns the assignments that make up the list setting name: its last plain
// one and the "extra-" ones after it.
func (n *NixConf) effective(name string) []nixSetting {
	var out []nixSetting
	for s := range n.settings {
		switch s.name {
		case name:
			out = []nixSetting{s}
		case "extra-" + name:
			out = append(out, s)
		}
	}
	return out
}

func (n *NixConf) last(name string) (last nixSetting, ok bool) {
	for s := range n.settings {
		if s.name == name {
			last, ok = s, true
		}
	}
	return last, ok
}

// append adds a line at the end, ending the line before it if nothing did.
func (n *NixConf) append(line string) {
	eol := "\n"
	if len(n.lines) > 1 && strings.HasSuffix(n.lines[0], "\r\n") {
		eol = "\r\n"
	}
	if last := len(n.lines) - 1; last >= 0 && n.lines[last] == "" {
		n.lines = n.lines[:last]
	} else if last >= 0 && !strings.HasSuffix(n.lines[last], "\n") {
		n.lines[last] += eol
	}
	n.lines = append(n.lines, line+eol)
}

// splitSetting reads a line as an assignment.
func splitSetting(line string) (name, value string, ok bool) {
	line = stripComment(line)
	f := nixWords(line)
	if len(f) < 2 || f[1] != "=" {
		return "", "", false
	}
	return f[0], line[strings.IndexByte(line, '=')+1:], true
}

func stripComment(line string) string {
	before, _, _ := strings.Cut(line, "#")
	return before
}

// valueEnd is where the last word of an assignment ends, before spaces and comment.
func valueEnd(line string) int {
	return len(strings.TrimRight(stripComment(line), " \t\r\n"))
}

// wordSpan finds word in the value of an assignment, with the space before it.
func wordSpan(line, word string) (from, to int) {
	value := line[:valueEnd(line)]
	eq := strings.IndexByte(value, '=')
	for at := eq + 1; at < len(value); {
		start := at
		for at < len(value) && strings.IndexByte(" \t", value[at]) >= 0 {
			at++
		}
		begin := at
		for at < len(value) && strings.IndexByte(" \t", value[at]) < 0 {
			at++
		}
		if value[begin:at] == word {
			return start, at
		}
	}
	return -1, -1
}

// NixFiles returns where Nix keeps its configuration: the user's, or the system's.
func NixFiles(env Env, system bool) (conf, netrc string) {
	dir := filepath.Join(env.configHome(), "nix")
	if system {
		dir = env.Get("NIX_CONF_DIR")
		if dir == "" {
			dir = "/etc/nix"
		}
	}
	return filepath.Join(dir, "nix.conf"), filepath.Join(dir, "netrc")
}

// InNixStore says where a file is, or would be, once symbolic links are followed, and
// whether that is in the Nix store.
func InNixStore(env Env, path string) (target string, inside bool) {
	target = followLinks(path)
	for _, store := range []string{"/nix/store", env.Get("NIX_STORE_DIR")} {
		if filepath.IsAbs(store) && strings.HasPrefix(target, followLinks(store)+"/") {
			return target, true
		}
	}
	return target, false
}

// followLinks follows symbolic links as far as there are files.
func followLinks(path string) string {
	path = filepath.Clean(path)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	dir := filepath.Dir(path)
	if dir == path {
		return path
	}
	return filepath.Join(followLinks(dir), filepath.Base(path))
}

// nixWords splits as Nix does, which knows no other white space than ASCII's.
func nixWords(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
}

// DiffLines lists the lines that are only in before, after "- ", and those that are
// only in after, after "+ ".
func DiffLines(before, after string) []string {
	if before == after {
		return nil
	}
	a, b := nixLines(before), nixLines(after)
	var out []string
	for _, line := range a {
		if !slices.Contains(b, line) {
			out = append(out, "- "+line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			out = append(out, "+ "+line)
		}
	}
	return out
}

func nixLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), "\n"), "\n")
}
