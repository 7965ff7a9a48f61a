package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/ui"
)

// Exit codes of celler.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitPartly = 3 // something was done, something was not
)

// verdict is what a person is told about an error, and what a script is.
type verdict struct {
	code     int
	sentence string   // "" when the verb has already said everything
	hints    []string // each is something to type or to change
}

// usageError reports arguments that make no sense together.
type usageError struct {
	Problem string
	Hint    string
}

func (e *usageError) Error() string { return e.Problem }

// damageError reports that something is damaged, of which the verb has said everything.
type damageError struct{}

func (*damageError) Error() string { return "damage was found" }

// repairedError reports that what was damaged was put right at a price, of which the verb
// has said everything.
type repairedError struct{}

func (*repairedError) Error() string { return "paths have to be pushed again" }

// partlyError reports that some of the work was done and some was not; the verb has
// named each failure already.
type partlyError struct {
	Done, Failed int
	What         string // "path"
}

func (e *partlyError) Error() string {
	return fmt.Sprintf("%s done, %d failed", ui.Plural(e.Done, e.What, e.What+"s"), e.Failed)
}

// report prints what is to be said about err and returns the exit code.
func report(p *ui.Printer, command string, err error) int {
	if err == nil {
		return exitDone
	}
	v := explain(err)
	if v.sentence != "" {
		p.Error(command, v.sentence, v.hints...)
	}
	return v.code
}

// explain is the one table from errors to exit codes, sentences and hints. Errors of
// the network are explained by explainClient, those of a bucket by explainNode.
func explain(err error) verdict {
	// A bucket's errors first: beneath them may be the same failure of a connection that
	// a client meets, and then the bucket and not the server is what does not answer.
	if v, ok := explainAgent(err); ok {
		return v
	}
	if v, ok := explainNode(err); ok {
		return v
	}
	if v, ok := explainClient(err); ok {
		return v
	}
	if usage, ok := errors.AsType[*usageError](err); ok {
		return verdict{exitUsage, err.Error(), hintList(usage.Hint)}
	}
	if _, ok := errors.AsType[*damageError](err); ok {
		return verdict{exitFailed, "", nil}
	}
	if _, ok := errors.AsType[*repairedError](err); ok {
		return verdict{exitPartly, "", nil}
	}
	if partly, ok := errors.AsType[*partlyError](err); ok {
		return verdict{exitPartly, partly.Error(), nil}
	}
	if file, ok := errors.AsType[*config.FileError](err); ok {
		return verdict{exitUsage, file.Error(), nil}
	}
	if login, ok := errors.AsType[*config.LoginError](err); ok {
		return verdict{exitFailed, err.Error(), loginHints(login)}
	}
	if _, ok := errors.AsType[*kong.ParseError](err); ok {
		help := strings.TrimSpace("celler " + commandOf(err))
		return verdict{exitUsage, lowerFirst(err.Error()), []string{fmt.Sprintf("see %q", help+" --help")}}
	}
	if errors.Is(err, context.Canceled) {
		return verdict{exitFailed, "interrupted", nil}
	}
	return verdict{exitFailed, err.Error(), nil}
}

func loginHints(e *config.LoginError) []string {
	hints := []string{`log in with "celler login NAME https://cache.example.org --token-stdin"`}
	if len(e.Known) > 0 {
		hints = append(hints, "configured servers: "+strings.Join(e.Known, ", "))
	}
	return hints
}

func hintList(hint string) []string {
	if hint == "" {
		return nil
	}
	return []string{hint}
}

// lowerFirst fits a sentence of a library to ours.
func lowerFirst(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'a' && s[1] <= 'z' {
		return string(s[0]+'a'-'A') + s[1:]
	}
	return s
}
