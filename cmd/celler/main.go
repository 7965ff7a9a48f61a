package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/ui"
)

func main() {
	os.Exit(run(selfName(os.Args[0]), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main with its world passed in; it returns the exit code. self is what to type
// to run it again.
func run(self string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal finds the default handler, which kills

	a := &app{
		ui:      ui.New(ui.Options{Stdout: stdout, Stderr: stderr, Self: self}),
		env:     config.OS(),
		stdin:   stdin,
		stderr:  stderr,
		now:     time.Now,
		version: version(),
	}
	var c cli
	exited := -1
	parser, err := newParser(&c, stdout, stderr, func(code int) { exited = code }, kong.Bind(a), kong.BindTo(ctx, (*context.Context)(nil)))
	if err != nil {
		return report(a.ui, "", err)
	}
	k, err := parser.Parse(args)
	if exited >= 0 { // --help or --version has printed what was asked for
		return exited
	}
	if err != nil {
		return report(a.ui, commandOf(err), err)
	}
	a.ui.SetQuiet(c.Quiet)
	return report(a.ui, verbOf(k), k.Run())
}
