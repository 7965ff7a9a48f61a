package main

import (
	"errors"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// newParser builds the command line over c. exit is told the code when kong itself
// ends the program, which it does for --help and --version only.
func newParser(c *cli, stdout, stderr io.Writer, exit func(int), options ...kong.Option) (*kong.Kong, error) {
	return kong.New(c, append([]kong.Option{
		kong.Name("celler"),
		kong.Description("A Nix binary cache that needs nothing but a bucket."),
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "daily", Title: "Every day:"},
			{Key: "admin", Title: "Administration, over the network:"},
			{Key: "server", Title: "On the server's side:"},
		}),
	}, options...)...)
}

// verbOf names the command that was chosen, without its arguments: "cache create".
func verbOf(k *kong.Context) string {
	var words []string
	for _, p := range k.Path {
		if p.Command != nil {
			words = append(words, p.Command.Name)
		}
	}
	return strings.Join(words, " ")
}

// commandOf names the command whose flags could not be parsed, as far as it is known.
func commandOf(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		return verbOf(parse.Context)
	}
	return ""
}

// givenText is the value of a flag that must not be given and empty: what an unset
// variable leaves of --at "$X" would otherwise mean the same as no --at at all.
type givenText string

// Decode implements kong.MapperValue.
func (g *givenText) Decode(k *kong.DecodeContext) error {
	var text string
	if err := k.Scan.PopValueInto(k.Value.Name, &text); err != nil {
		return err
	}
	if strings.TrimSpace(text) == "" {
		return errors.New("is given, but empty")
	}
	*g = givenText(text)
	return nil
}
