package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/celler/celler/internal/config"
)

// What contrib has others run is something that this program understands.
func TestContribCommands(t *testing.T) {
	names, err := filepath.Glob("../../contrib/systemd/*.service")
	if err != nil || len(names) < 2 {
		t.Fatalf("units %v, %v", names, err)
	}
	commands := 0
	for _, name := range append(names, "../../contrib/celler-hook") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			command, ok := strings.CutPrefix(line, "ExecStart=")
			if !ok {
				command, ok = strings.CutPrefix(line, "exec ")
			}
			if !ok {
				continue
			}
			commands++
			words := strings.Fields(strings.ReplaceAll(command, "%i", "ci"))
			if words[0] != "/usr/local/bin/celler" {
				t.Errorf("%s runs %s", name, words[0])
			}
			if err := parseWords(t, words[1:]); err != nil {
				t.Errorf("%s: %s: %v", name, strings.TrimSpace(command), err)
			}
		}
	}
	if commands != len(names)+1 {
		t.Errorf("%d commands in %d files", commands, len(names)+1)
	}
}

// The hook of root's and the units agree on where the queue is.
func TestContribQueue(t *testing.T) {
	dir := config.QueueDir(config.NewEnv(nil), "", 0)
	for name, want := range map[string]string{
		"celler-agent.socket":   "ListenStream=" + dir + "/agent.sock\n",
		"celler-agent.service":  "CELLER_QUEUE=" + dir + "\n",
		"celler-agent.sysusers": dir + "\n",
	} {
		text, err := os.ReadFile("../../contrib/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("%s does not have %q", name, want)
		}
	}
}
