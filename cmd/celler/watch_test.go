package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/internal/queue"
)

// A disk that does not take how far a watcher has come is told of, and does not end it.
func TestWatchCannotRecord(t *testing.T) {
	q, err := queue.Open(filepath.Join(t.TempDir(), "queue"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(q.Dir(), "seen"), nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	var said bytes.Buffer
	w := &storeWatch{q: q, targets: []queue.Target{{Cache: "ci"}}, logger: slog.New(slog.NewTextHandler(&said, nil))}
	w.seen(time.Unix(1_700_000_000, 0))
	if !strings.Contains(said.String(), "look further back") {
		t.Errorf("said %q", said.String())
	}
}
