package auth

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Pattern selects cache names: the characters of a cache name, and "*", which stands
// for any number of characters, none included. There is nothing else.
type Pattern string

// maxPatternBytes is the length of the longest cache name, which is also that of
// the longest pattern.
const maxPatternBytes = 50

// ParsePattern checks that s is a pattern: 1 to 50 letters, digits, "-", "_", "+" or "*",
// of which the first is a letter, a digit or "*".
func ParsePattern(s string) (Pattern, error) {
	if s == "" || len(s) > maxPatternBytes {
		return "", fmt.Errorf("parse cache name pattern %s: expected 1 to %d characters, found %d", quote(s), maxPatternBytes, len(s))
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '*':
		case i > 0 && (c == '-' || c == '_' || c == '+'):
		default:
			r, _ := utf8.DecodeRuneInString(s[i:])
			return "", fmt.Errorf("parse cache name pattern %s: unexpected %q at %d", quote(s), r, i)
		}
	}
	return Pattern(s), nil
}

// Matches reports whether name is one of those that p selects.
func (p Pattern) Matches(name string) bool { return matches(string(p), name) }

// includes reports whether every name that q selects is selected by p. It may say no where the
// answer is yes, never the reverse: the text of q is matched as if its stars were a
// character that only a star of p can swallow.
func (p Pattern) includes(q Pattern) bool { return matches(string(p), string(q)) }

// intersects reports whether some name is selected by both.
func (p Pattern) intersects(q Pattern) bool {
	// meet[j] = p[i:] and q[j:] have a common word; rows from the end of p.
	meet := make([]bool, len(q)+1)
	next := make([]bool, len(q)+1)
	for i := len(p); i >= 0; i-- {
		for j := len(q); j >= 0; j-- {
			switch {
			case i == len(p) && j == len(q):
				meet[j] = true
			case i < len(p) && p[i] == '*':
				meet[j] = next[j] || j < len(q) && meet[j+1]
			case j < len(q) && q[j] == '*':
				meet[j] = meet[j+1] || i < len(p) && next[j]
			default:
				meet[j] = i < len(p) && j < len(q) && p[i] == q[j] && next[j+1]
			}
		}
		meet, next = next, meet
	}
	return next[0]
}

// literal reports whether p selects exactly the one name it spells.
func (p Pattern) literal() bool {
	for i := range len(p) {
		if p[i] == '*' {
			return false
		}
	}
	return true
}

// matches is the classic glob walk: on a mismatch the latest star swallows one
// character more. Its time is at most len(pattern) × len(name).
func matches(pattern, name string) bool {
	i, star, mark := 0, -1, 0
	for j := 0; j < len(name); {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && pattern[i] == name[j]:
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(pattern) && pattern[i] == '*' {
		i++
	}
	return i == len(pattern)
}

// maxQuoted bounds how much of a stranger's text an error repeats.
const maxQuoted = 80

func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "…"
	}
	return strconv.Quote(s)
}
