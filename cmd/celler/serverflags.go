package main

import (
	"github.com/alecthomas/kong"

	"github.com/celler/celler/internal/config"
)

// serverFlags is embedded by every verb on the server's side: it reads the server's
// configuration file before the flags, so that both together say what holds.
type serverFlags struct {
	ConfigFile string `name:"config" short:"f" placeholder:"FILE" help:"TOML file to read, Attic's server.toml included ($$XDG_CONFIG_HOME/celler/server.toml)."`

	file *config.File
}

// BeforeResolve loads the file and lets kong ask it for what nothing else has set.
func (s *serverFlags) BeforeResolve(k *kong.Context, a *app) error {
	path := ""
	for _, flag := range k.Flags() {
		if flag.Name == "config" {
			path, _ = k.FlagValue(flag).(string)
		}
	}
	file, err := config.LoadFile(a.env, path)
	if err != nil || file == nil {
		return err
	}
	s.file = file
	k.AddResolver(file)
	return nil
}

// notices tells how the file was understood.
func (s *serverFlags) notices(a *app) {
	if s.file == nil {
		return
	}
	for _, notice := range s.file.Notices {
		a.ui.Note("celler: note: %s: %s", s.file.Path, notice)
	}
}
