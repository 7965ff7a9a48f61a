package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/ui"
	"github.com/celler/celler/nix"
)

// watched has a push told: outcomes, and how it ended.
func watched(t *testing.T, c pushCmd, result client.Result, err error, outcomes ...client.Outcome) (text string, events []map[string]any) {
	t.Helper()
	for _, asJSON := range []bool{false, true} {
		var out, errs bytes.Buffer
		printer := ui.New(ui.Options{Stdout: &out, Stderr: &errs})
		printer.SetJSON(asJSON)
		w := &pushWatcher{ui: printer, cmd: &c, cache: "ci", now: time.Now, skipped: map[string][]string{}}
		w.plan(client.Plan{Push: len(outcomes), Workers: 1})
		for _, o := range outcomes {
			w.done(-1, o)
		}
		w.close()
		w.summary(config.Remote{Cache: "ci"}, result, err)
		if !asJSON {
			text = out.String() + errs.String()
			continue
		}
		for line := range strings.Lines(out.String()) {
			var event map[string]any
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			events = append(events, event)
		}
	}
	return text, events
}

// TestPushSummary: what is new, deduplicated, compressed and sent is told of each path and
// of all, and a dry run says as much as the server can tell.
func TestPushSummary(t *testing.T) {
	path, err := nix.ParseStorePath("/nix/store/" + hashPart + "-hello")
	if err != nil {
		t.Fatal(err)
	}
	expect := func(what, text string, event map[string]any, wantText string, want map[string]any) {
		t.Helper()
		if !strings.Contains(text, wantText) {
			t.Errorf("%s: told\n%s\nwant %q", what, text, wantText)
		}
		for key, v := range want {
			if event[key] != v {
				t.Errorf("%s: %s is %v in %v, want %v", what, key, event[key], event, v)
			}
		}
	}
	half := client.Outcome{Path: path, Kind: client.Pushed, NarSize: 4096, Counted: true, New: 1024, Deduplicated: 0.75, Compressed: 512, Sent: 600}
	text, events := watched(t, pushCmd{}, client.Result{Pushed: 1, Bytes: 4096, Counted: 1, New: 1024, Deduplicated: 3072, Compressed: 512, Sent: 600}, nil, half)
	numbers := map[string]any{"new_bytes": 1024.0, "deduplicated_bytes": 3072.0, "compressed_bytes": 512.0, "sent_bytes": 600.0}
	expect("a path", text, events[1], "4.0 KiB, 1.0 KiB new, sent 600 B", numbers)
	expect("all", text, events[2], "(4.0 KiB, 1.0 KiB of it new, 3.0 KiB deduplicated, 512 B compressed, 600 B sent)", numbers)

	nothing := client.Outcome{Path: path, Kind: client.Deduplicated, NarSize: 4096, Counted: true, Deduplicated: 1}
	text, events = watched(t, pushCmd{}, client.Result{Pushed: 1, Bytes: 4096, Counted: 1, Deduplicated: 4096}, nil, nothing)
	expect("nothing new", text, events[1], "0 B of it new", map[string]any{"new_bytes": 0.0, "deduplicated_bytes": 4096.0, "sent_bytes": 0.0})

	planned := client.Outcome{Path: path, Kind: client.Planned, NarSize: 4096, Counted: true}
	text, events = watched(t, pushCmd{DryRun: true}, client.Result{Planned: 1, Bytes: 4096, Counted: 1}, nil, planned)
	expect("a dry run of what is there", text, events[2], "would push 1 path (4.0 KiB), of which 0 B are new to the server\n", map[string]any{"planned": 1.0})
	planned.Counted = false
	text, events = watched(t, pushCmd{DryRun: true}, client.Result{Planned: 1, Bytes: 4096}, nil, planned)
	expect("a dry run that nobody counts", text, events[2], "would push 1 path (4.0 KiB)\n", map[string]any{"planned": 1.0, "new_bytes": 0.0})

	_, events = watched(t, pushCmd{}, client.Result{}, errors.New("no such cache"))
	expect("a push that failed", "", events[1], "", map[string]any{"event": "done", "err": "no such cache"})
}

// TestPushHint: what is to be done about a path that failed is said, whether others arrived
// or not.
func TestPushHint(t *testing.T) {
	path, err := nix.ParseStorePath("/nix/store/" + hashPart + "-hello")
	if err != nil {
		t.Fatal(err)
	}
	w := &pushWatcher{
		ui: ui.New(ui.Options{Stdout: io.Discard, Stderr: io.Discard}), cmd: &pushCmd{}, now: time.Now,
		remote: config.Remote{Endpoint: "https://cache.example.org/", Token: "t"},
	}
	w.plan(client.Plan{Push: 1, Workers: 1})
	w.done(-1, client.Outcome{Path: path, Kind: client.Failed, Err: &client.StatusError{Status: 507}})
	w.close()
	for code, result := range map[int]client.Result{exitFailed: {Failed: 1}, exitPartly: {Failed: 1, Pushed: 1}} {
		v := explain(w.incomplete(result))
		if v.code != code || len(v.hints) != 1 || !strings.HasPrefix(v.hints[0], "make room where https://cache.example.org/") {
			t.Errorf("%+v: %+v", result, v)
		}
	}
}
