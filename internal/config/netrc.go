package config

import (
	"fmt"
	"strings"
)

// SetNetrc returns text with the password for machine set to password, and whether
// that changed anything. An entry that is there keeps its place, its login and its
// layout; a new one goes to the end, but before a "default" entry, after which
// nothing is read.
//
// The text is what curl reads: tokens between white space, "…" with backslashes for
// tokens with spaces, # for the rest of a line, and "macdef" with a body that ends at
// an empty line.
func SetNetrc(text, machine, password string) (string, bool, error) {
	for what, s := range map[string]string{"machine": machine, "password": password} {
		if s == "" || strings.ContainsAny(s, " \t\r\n\"\\#") {
			return "", false, fmt.Errorf("write netrc: %s is empty or holds white space, a quote, a backslash or a #", what)
		}
	}
	tokens := netrcTokens(text)
	for i, tok := range tokens {
		if tok.keyword != "machine" || i+1 == len(tokens) || tokens[i+1].text != machine {
			continue
		}
		have, found := netrcPassword(tokens[i+2:])
		if !found {
			at := tokens[i+1].to
			return text[:at] + " password " + password + text[at:], true, nil
		}
		if have.text == password {
			return text, false, nil
		}
		return text[:have.from] + password + text[have.to:], true, nil
	}
	at := len(text)
	for _, tok := range tokens {
		if tok.keyword == "default" {
			at = tok.from
			break
		}
	}
	entry := "machine " + machine + " login celler password " + password + "\n"
	if at > 0 && text[at-1] != '\n' {
		entry = "\n" + entry
	}
	// An empty line ends the macro that the file may end in.
	for _, gap := range []string{"", "\n"} {
		out := text[:at] + gap + entry + text[at:]
		if have, found := NetrcPassword(out, machine); found && have == password {
			return out, true, nil
		}
	}
	return "", false, fmt.Errorf("write netrc: it ends inside a quoted word or a keyword without its value; mend it first")
}

// NetrcPassword returns the password that a reader of text finds for machine.
func NetrcPassword(text, machine string) (string, bool) {
	tokens := netrcTokens(text)
	for i, tok := range tokens {
		if tok.keyword == "machine" && i+1 < len(tokens) && tokens[i+1].text == machine {
			have, found := netrcPassword(tokens[i+2:])
			return have.text, found
		}
	}
	return "", false
}

// netrcToken is one word of a netrc and where it stands, quotes included.
type netrcToken struct {
	text     string
	keyword  string // text, when it stands where a keyword is expected
	from, to int
}

// netrcPassword finds the password in the tokens after a machine's name.
func netrcPassword(tokens []netrcToken) (netrcToken, bool) {
	for i, tok := range tokens {
		switch tok.keyword {
		case "machine", "default", "macdef":
			return netrcToken{}, false
		case "password":
			if i+1 < len(tokens) && tokens[i+1].keyword == "" {
				return tokens[i+1], true
			}
		}
	}
	return netrcToken{}, false
}

// netrcTokens splits a netrc, passing over comments and the bodies of macros.
func netrcTokens(text string) []netrcToken {
	var tokens []netrcToken
	argument := false // the next token belongs to the keyword before it
	for at := 0; ; {
		for at < len(text) && strings.IndexByte(" \t\r\n", text[at]) >= 0 {
			at++
		}
		if at == len(text) {
			return tokens
		}
		if text[at] == '#' {
			at += lineLen(text[at:])
			continue
		}
		tok := netrcToken{from: at}
		if text[at] == '"' {
			tok.text, at = unquoteNetrc(text, at+1)
		} else {
			end := at + wordLen(text[at:])
			tok.text, at = text[at:end], end
		}
		tok.to = at
		if !argument {
			tok.keyword = tok.text
		}
		tokens = append(tokens, tok)
		switch {
		case tok.keyword == "macdef":
			if end := strings.Index(text[at:], "\n\n"); end >= 0 {
				at += end + 2
			} else {
				at = len(text)
			}
		case argument:
			argument = false
		default:
			argument = tok.keyword == "machine" || tok.keyword == "login" || tok.keyword == "password" || tok.keyword == "account"
		}
	}
}

func unquoteNetrc(text string, at int) (string, int) {
	var b strings.Builder
	for at < len(text) && text[at] != '"' {
		if text[at] == '\\' && at+1 < len(text) {
			at++
		}
		b.WriteByte(text[at])
		at++
	}
	return b.String(), min(at+1, len(text))
}

func wordLen(s string) int {
	if i := strings.IndexAny(s, " \t\r\n"); i >= 0 {
		return i
	}
	return len(s)
}

func lineLen(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i
	}
	return len(s)
}
