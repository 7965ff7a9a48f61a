package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite docs/cli.md")

// The manual in docs is the one that the program has in itself.
func TestReference(t *testing.T) {
	var c cli
	parser, err := newParser(&c, io.Discard, io.Discard, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	const path = "../../docs/cli.md"
	want := reference(parser.Model.Node)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/cli.md is not what the program says; renew it with \"make gen\" (-program +docs):\n%s", diff)
	}
}

// reference writes the manual of the command line, docs/cli.md, from the same model
// that parses it.
func reference(root *kong.Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The command line\n\n%s\n\nThis page is made from the program; `make gen` renews it. "+
		"Every command has `--help`; every one that prints data has `--json`. Data goes to standard output, everything else to standard error.\n\n"+
		"| exit code | meaning |\n| --- | --- |\n| 0 | done |\n| 1 | failed |\n| 2 | wrong usage or configuration |\n| 3 | partly done |\n\n", root.Help)
	b.WriteString("Flags of every command:\n\n")
	flagTable(&b, root.Flags)
	for _, leaf := range root.Leaves(true) {
		referenceCommand(&b, leaf)
	}
	return b.String()
}

func referenceCommand(b *strings.Builder, n *kong.Node) {
	fmt.Fprintf(b, "\n## celler %s\n\n%s\n", n.Path(), n.Help)
	if n.Detail != "" {
		fmt.Fprintf(b, "\n%s\n", paragraphs(n.Detail))
	}
	if len(n.Positional) > 0 {
		b.WriteString("\n| argument | meaning |\n| --- | --- |\n")
		for _, p := range n.Positional {
			fmt.Fprintf(b, "| `%s` | %s |\n", cell(p.Summary()), cell(p.Help))
		}
	}
	if len(n.Flags) > 0 {
		b.WriteString("\n")
		flagTable(b, n.Flags)
	}
}

func flagTable(b *strings.Builder, flags []*kong.Flag) {
	b.WriteString("| flag | variable | meaning |\n| --- | --- | --- |\n")
	for _, f := range flags {
		if f.Hidden {
			continue
		}
		text := "--" + f.Name
		if f.Tag.Negatable != "" {
			text = "--[no-]" + f.Name
		}
		if f.Short != 0 {
			text = fmt.Sprintf("-%c, %s", f.Short, text)
		}
		if !f.IsBool() {
			text += "=" + f.FormatPlaceHolder()
		}
		variable := ""
		if len(f.Envs) > 0 {
			variable = "`" + f.Envs[0] + "`"
		}
		help := f.Help
		if f.Required {
			help += " Required."
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", cell(text), variable, cell(help))
	}
}

// cell keeps a text within its cell of a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "\n", " ")
}

// paragraphs shows lines that look like commands as such.
func paragraphs(detail string) string {
	return "```text\n" + detail + "\n```"
}
