package ui_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/celler/celler/internal/ui"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStreams(t *testing.T) {
	var out, err bytes.Buffer
	p := ui.New(ui.Options{Stdout: &out, Stderr: &err})
	p.Data("data %d", 1)
	p.Note("note %s", "x")
	p.Warn("careful")
	p.Error("push", `cache "ci" does not exist`, `create it with "celler cache create ci"`, "or not")
	p.SetQuiet(true)
	p.Note("not heard")
	p.Warn("still heard")
	if e := p.Value(map[string]int{"n": 2}); e != nil {
		t.Fatal(e)
	}
	if diff := cmp.Diff("data 1\n{\"n\":2}\n", out.String()); diff != "" {
		t.Errorf("standard output (-want +got):\n%s", diff)
	}
	want := `note x
celler: warning: careful
celler: push: cache "ci" does not exist
hint: create it with "celler cache create ci"
hint: or not
celler: warning: still heard
`
	if diff := cmp.Diff(want, err.String()); diff != "" {
		t.Errorf("standard error (-want +got):\n%s", diff)
	}
}

// A hint names the program as it was started, wherever the hint came from.
func TestSelf(t *testing.T) {
	var err bytes.Buffer
	p := ui.New(ui.Options{Stderr: &err, Self: "./bin/celler"})
	p.Error("push", "celler is not there", `run "celler serve" or "celler login"; celler is patient`)
	want := "celler: push: celler is not there\nhint: run \"./bin/celler serve\" or \"./bin/celler login\"; celler is patient\n"
	if diff := cmp.Diff(want, err.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := ui.New(ui.Options{}).Self(); got != "celler" {
		t.Errorf("by default the program is called %q", got)
	}
}

func TestTable(t *testing.T) {
	got := ui.FormatTable([]string{"NAME", "SIZE", "NOTE"}, [][]string{{"é", "1 KiB", ""}, {"longer", "2", "x"}})
	want := "NAME    SIZE   NOTE\né       1 KiB\nlonger  2      x\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := ui.FormatTable(nil, nil); got != "" {
		t.Errorf("an empty table is %q", got)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 218 << 20: "218 MiB",
		1<<20 - 1: "1.0 MiB", 1<<63 - 1: "8.0 EiB", -2048: "-2.0 KiB",
	} {
		if got := ui.Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
	if got := ui.Rate(10<<20, 2*time.Second); got != "5.0 MiB/s" {
		t.Errorf("got %q", got)
	}
	if got := ui.Rate(1, 0); got != "" {
		t.Errorf("a rate over no time is %q", got)
	}
	for d, want := range map[time.Duration]string{230 * time.Millisecond: "230ms", 4100 * time.Millisecond: "4.1s", 192 * time.Second: "3m12s"} {
		if got := ui.Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
	if got := ui.Plural(1, "path", "paths") + ", " + ui.Plural(2, "path", "paths"); got != "1 path, 2 paths" {
		t.Errorf("got %q", got)
	}
}

func TestProgressPlain(t *testing.T) {
	var out, err bytes.Buffer
	p := ui.New(ui.Options{Stdout: &out, Stderr: &err})
	g := p.Progress(ui.ProgressOptions{Verb: "pushed", Items: 2, Bytes: 30, Workers: 2})
	g.Start(0, "a", 10)
	g.Add(0, 10)
	g.Done(0, "pushed a", nil)
	g.Event("skipped b", nil)
	g.Close()
	g.Close() // once more is harmless
	if diff := cmp.Diff("pushed a\nskipped b\n", err.String()); diff != "" || out.Len() > 0 {
		t.Errorf("(-want +got):\n%s and on standard output %q", diff, out.String())
	}
}

func TestProgressJSON(t *testing.T) {
	var out, err bytes.Buffer
	p := ui.New(ui.Options{Stdout: &out, Stderr: &err, JSON: true})
	g := p.Progress(ui.ProgressOptions{Items: 1})
	g.Start(0, "a", 10)
	g.Done(0, "pushed a", map[string]string{"event": "done"})
	g.Event("nothing for machines", nil)
	g.Close()
	if out.String() != "{\"event\":\"done\"}\n" || err.Len() > 0 {
		t.Errorf("got %q and %q", out.String(), err.String())
	}
}

func TestProgressTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var err bytes.Buffer
		p := ui.New(ui.Options{Stderr: &err})
		p.SetTerminal(60, 5)
		g := p.Progress(ui.ProgressOptions{Verb: "pushed", Items: 3, Bytes: 4096, Workers: 8})
		for i := range 8 {
			g.Start(i, "path-"+strings.Repeat("x", 80), 2048)
		}
		g.Add(0, 1024)
		time.Sleep(150 * time.Millisecond) // of the bubble's clock: one redraw
		synctest.Wait()
		p.Note("a line between")
		g.Close()

		drawn, after, _ := strings.Cut(err.String(), "\x1b[4A\x1b[J")
		lines := strings.Split(strings.TrimSuffix(drawn, "\n"), "\n")
		if len(lines) != 4 {
			t.Fatalf("drew %d lines on a screen of 5, want 4: %q", len(lines), lines)
		}
		for _, line := range lines {
			if n := len([]rune(line)); n >= 60 {
				t.Errorf("a line of %d columns wraps on a screen of 60: %q", n, line)
			}
		}
		if !strings.HasPrefix(lines[0], "   50% of 2.0 KiB      path-xxx") {
			t.Errorf("the first worker's line is %q", lines[0])
		}
		if want := "0 of 3 paths pushed, 1.0 KiB of 4.0 KiB, "; !strings.HasPrefix(lines[3], want) {
			t.Errorf("the total is %q, want it to begin with %q", lines[3], want)
		}
		if !strings.HasPrefix(after, "a line between\n") || !strings.HasSuffix(after, "\x1b[4A\x1b[J") {
			t.Errorf("after the first drawing came %q", after)
		}
	})
}
