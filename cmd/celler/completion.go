package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is printed below the flags.
func (c *completionCmd) Help() string {
	return `Shells find the script where it is put like this:

    bash: celler completion bash >~/.local/share/bash-completion/completions/celler
    zsh:  celler completion zsh >"${fpath[1]}/_celler"
    fish: celler completion fish >~/.config/fish/completions/celler.fish`
}

// Run prints the script.
func (c *completionCmd) Run(a *app, k *kong.Context) error {
	words := completions(k.Model.Node)
	switch c.Shell {
	case "bash":
		a.ui.Raw([]byte(bashCompletion(words)))
	case "zsh":
		a.ui.Raw([]byte(zshCompletion(words)))
	case "fish":
		a.ui.Raw([]byte(fishCompletion(words)))
	}
	return nil
}

// completion is what may follow a command.
type completion struct {
	command string // "celler cache create"
	words   []completionWord
}

type completionWord struct {
	text  string // "create", "--json"
	help  string
	value bool // a flag that wants a value
}

// completions walks the model: for every command its subcommands and flags, those of
// the commands above it included.
func completions(root *kong.Node) []completion {
	var all []completion
	var walk func(n *kong.Node, command string, inherited []completionWord)
	walk = func(n *kong.Node, command string, inherited []completionWord) {
		c := completion{command: command}
		flags := append([]completionWord{}, inherited...)
		for _, f := range n.Flags {
			if f.Hidden {
				continue
			}
			flags = append(flags, completionWord{"--" + f.Name, firstSentence(f.Help), !f.IsBool()})
			if f.Tag.Negatable != "" {
				flags = append(flags, completionWord{"--no-" + f.Name, "Not: " + firstSentence(f.Help), false})
			}
		}
		for _, child := range n.Children {
			if child.Hidden {
				continue
			}
			c.words = append(c.words, completionWord{child.Name, firstSentence(child.Help), false})
		}
		for _, p := range n.Positional {
			if p.Enum == "" {
				continue
			}
			for _, word := range p.EnumSlice() {
				c.words = append(c.words, completionWord{word, firstSentence(p.Help), false})
			}
		}
		c.words = append(c.words, flags...)
		all = append(all, c)
		for _, child := range n.Children {
			if !child.Hidden {
				walk(child, command+" "+child.Name, flags)
			}
		}
	}
	walk(root, "celler", nil)
	return all
}

// firstSentence shortens a help text to what fits beside a word, in letters that no
// shell takes for its own.
func firstSentence(help string) string {
	help, _, _ = strings.Cut(help, "\n")
	for _, end := range []string{". ", "; ", " ("} {
		help, _, _ = strings.Cut(help, end)
	}
	help = strings.TrimSuffix(help, ".")
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("'\"`$\\[]:", r) {
			return -1
		}
		return r
	}, help)
}

// bashCompletion finds the longest command among the words typed so far, and offers
// what may follow it; after a flag with a value, or where nothing fits, file names.
func bashCompletion(all []completion) string {
	var b strings.Builder
	b.WriteString(`# bash completion for celler
_celler() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=celler word
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case "$command $word" in
`)
	fmt.Fprintf(&b, "\t\t%s) command=\"$command $word\" ;;\n\t\tesac\n\tdone\n", strings.Join(commands(all), "|"))
	if flags := valueFlags(all); len(flags) > 0 {
		fmt.Fprintf(&b, "\tcase \"$prev\" in\n\t%s) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n\tesac\n", strings.Join(flags, "|"))
	}
	b.WriteString("\tlocal words=\n\tcase \"$command\" in\n")
	for _, c := range all {
		var words []string
		for _, w := range c.words {
			words = append(words, w.text)
		}
		fmt.Fprintf(&b, "\t%q) words=%q ;;\n", c.command, strings.Join(words, " "))
	}
	b.WriteString(`	esac
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _celler celler
`)
	return b.String()
}

// zshCompletion does the same, with the help beside each word.
func zshCompletion(all []completion) string {
	var b strings.Builder
	b.WriteString(`#compdef celler
_celler() {
	local command=celler word
	for word in ${words[2,CURRENT-1]}; do
		case "$command $word" in
`)
	fmt.Fprintf(&b, "\t\t%s) command=\"$command $word\" ;;\n\t\tesac\n\tdone\n", strings.Join(commands(all), "|"))
	if flags := valueFlags(all); len(flags) > 0 {
		fmt.Fprintf(&b, "\tcase \"${words[CURRENT-1]}\" in\n\t%s) _files; return ;;\n\tesac\n", strings.Join(flags, "|"))
	}
	b.WriteString("\tlocal -a offers\n\tcase \"$command\" in\n")
	for _, c := range all {
		fmt.Fprintf(&b, "\t%q) offers=(\n", c.command)
		for _, w := range c.words {
			fmt.Fprintf(&b, "\t\t'%s:%s'\n", w.text, w.help)
		}
		b.WriteString("\t) ;;\n")
	}
	b.WriteString(`	esac
	_describe celler offers || _files
}
if [ "$funcstack[1]" = _celler ]; then _celler "$@"; else compdef _celler celler; fi
`)
	return b.String()
}

// fishCompletion states for each word when it is offered.
func fishCompletion(all []completion) string {
	var b strings.Builder
	b.WriteString(`# fish completion for celler
function __celler_at
	set -l command celler
	for word in (commandline -opc)[2..-1]
		switch "$command $word"
`)
	quoted := commands(all)
	fmt.Fprintf(&b, "\t\tcase %s\n\t\t\tset command \"$command $word\"\n\t\tend\n\tend\n\ttest \"$command\" = \"$argv\"\nend\n", strings.Join(quoted, " "))
	for _, c := range all {
		for _, w := range c.words {
			condition := fmt.Sprintf("-n '__celler_at %s'", c.command)
			if name, ok := strings.CutPrefix(w.text, "--"); ok {
				value := ""
				if w.value {
					value = " -r"
				}
				fmt.Fprintf(&b, "complete -c celler %s -l %s%s -d '%s'\n", condition, name, value, w.help)
				continue
			}
			fmt.Fprintf(&b, "complete -c celler %s -f -a %s -d '%s'\n", condition, w.text, w.help)
		}
	}
	return b.String()
}

// commands quotes every command below the root.
func commands(all []completion) []string {
	var out []string
	for _, c := range all[1:] {
		out = append(out, fmt.Sprintf("%q", c.command))
	}
	return out
}

// valueFlags are the flags, of any command, after which a value comes.
func valueFlags(all []completion) []string {
	var out []string
	seen := map[string]bool{}
	for _, c := range all {
		for _, w := range c.words {
			if w.value && !seen[w.text] {
				seen[w.text] = true
				out = append(out, w.text)
			}
		}
	}
	return out
}
