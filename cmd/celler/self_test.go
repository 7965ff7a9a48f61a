package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSelfName(t *testing.T) {
	dir := t.TempDir()
	exe, other, link := filepath.Join(dir, "celler"), filepath.Join(dir, "other"), filepath.Join(dir, "link")
	for _, name := range []string{exe, other} {
		if err := os.WriteFile(name, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(exe, link); err != nil {
		t.Fatal(err)
	}
	check := func(arg0, exe, onPath, want string) {
		t.Helper()
		got := nameFor(arg0, exe, func(string) (string, error) {
			if onPath == "" {
				return "", errors.New("not found")
			}
			return onPath, nil
		})
		if got != want {
			t.Errorf("started as %s, %s, with %q on PATH: %s, want %s", arg0, exe, onPath, got, want)
		}
	}
	check("celler", exe, exe, "celler")
	check("./celler", exe, link, "celler")
	check("./celler", exe, other, "./celler")
	check("./celler", exe, "", "./celler")
	check("celler", exe, other, exe) // by a PATH that has changed since
	check("/a b/celler", exe, "", "celler")
	const built = "/tmp/go-build123/b001/exe/celler"
	check(built, built, "", "go run github.com/celler/celler/cmd/celler")
	t.Chdir(filepath.Join("..", ".."))
	check(built, built, exe, "go run ./cmd/celler")
}

// The name reaches the hints of every verb.
func TestSelfInHints(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	var stderr bytes.Buffer
	if code := run("./bin/celler", []string{"cache", "list"}, strings.NewReader(""), &stderr, &stderr); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(stderr.String(), `hint: log in with "./bin/celler login `) {
		t.Errorf("%s", stderr.String())
	}
}
