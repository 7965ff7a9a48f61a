package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// selfName is what to type to run this program again, for the commands that hints
// and greetings name: "celler" only if the shell would find this very file by it.
func selfName(arg0 string) string {
	exe, err := os.Executable()
	if err != nil {
		return "celler"
	}
	return nameFor(arg0, exe, exec.LookPath)
}

func nameFor(arg0, exe string, lookPath func(string) (string, error)) string {
	if found, err := lookPath("celler"); err == nil && sameFile(found, exe) {
		return "celler"
	}
	// Where "go run" puts what it has built, which is gone when this process ends.
	if regexp.MustCompile(`/go-build[0-9]+/b[0-9]+/exe/[^/]+$`).MatchString(filepath.ToSlash(exe)) {
		if _, err := os.Stat(filepath.Join("cmd", "celler", "main.go")); err == nil {
			return "go run ./cmd/celler"
		}
		return "go run github.com/celler/celler/cmd/celler"
	}
	if !strings.ContainsRune(arg0, filepath.Separator) {
		arg0 = exe
	}
	if strings.ContainsAny(arg0, " '\"") {
		return "celler" // it would not stand in a hint as it is
	}
	return arg0
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
