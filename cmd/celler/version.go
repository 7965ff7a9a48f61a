package main

import (
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

type versionCmd struct {
	jsonFlag
}

// Run prints the version, the commit it was built from and the Go release.
func (c *versionCmd) Run(a *app) error {
	info := versionInfo{Version: a.version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	return a.show(info, func() { a.ui.Data("celler %s (%s, %s)", info.Version, info.Go, info.Platform) })
}

type versionInfo struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// version is the module version this binary was installed as, or the commit it was
// built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	if revision == "" {
		return "devel"
	}
	return "devel-" + revision + dirty
}

// showVersion is a flag that does what the verb does.
type showVersion bool

// BeforeReset prints as soon as the flag is seen, whatever else the line lacks.
func (showVersion) BeforeReset(k *kong.Kong, a *app) error {
	err := (&versionCmd{}).Run(a)
	k.Exit(exitDone)
	return err
}
