package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/ui"
)

// listAtMost is how many skipped paths of one reason are named without --verbose.
const listAtMost = 5

// pushWatcher tells what client.Push reports.
type pushWatcher struct {
	ui  *ui.Printer
	cmd *pushCmd
	now func() time.Time

	cache   string
	remote  config.Remote
	several bool // events say which cache they are about

	mu       sync.Mutex // guards what follows
	progress *ui.Progress
	skipped  map[string][]string // base names by reason
	reasons  []string            // in order of appearance

	hints      []string // about the last path that failed
	inClosures string   // what is to be said of paths that are there with their closures
}

func (w *pushWatcher) events() client.Events {
	return client.Events{
		Plan: w.plan,
		Note: func(text string) { w.event("warning: "+text, map[string]any{"event": "note", "text": text}) },
		Start: func(worker int, path client.StorePath, size int64) {
			w.progress.Start(worker, path.Base(), size)
		},
		Sent: func(worker int, n int64) { w.progress.Add(worker, n) },
		Retry: func(_ int, path client.StorePath, attempt int, wait time.Duration, err error) {
			w.event(fmt.Sprintf("retry %s in %s, attempt %d failed: %v", path.Base(), ui.Duration(wait), attempt, err), map[string]any{
				"event": "retry", "store_path": path.String(), "attempt": attempt, "wait_seconds": wait.Seconds(), "err": err.Error(),
			})
		},
		Done:   w.done,
		Pinned: w.pinned,
		Below:  w.below,
	}
}

// plan begins the progress; everything before it is about paths that need no push.
func (w *pushWatcher) plan(p client.Plan) {
	w.flush()
	if w.progress != nil {
		w.progress.Close() // of an earlier run
	}
	if w.ui.JSON() {
		w.event("", map[string]any{"event": "plan", "paths": p.Paths, "push": p.Push, "nar_bytes": p.Bytes})
	}
	if p.Push > 0 && !w.cmd.DryRun {
		w.mu.Lock()
		w.progress = w.ui.Progress(ui.ProgressOptions{Verb: "pushed", Items: p.Push, Bytes: p.Bytes, Workers: p.Workers, Now: w.now})
		w.mu.Unlock()
	}
}

// flush says what was skipped and why.
func (w *pushWatcher) flush() {
	if w.ui.JSON() {
		return
	}
	for _, reason := range w.reasons {
		bases := w.skipped[reason]
		if len(bases) > listAtMost && !w.cmd.Verbose {
			w.ui.Note("skipped %s: %s", ui.Plural(len(bases), "path", "paths"), reason)
			continue
		}
		for _, base := range bases {
			w.ui.Note("skipped %s: %s", base, reason)
		}
	}
	if w.inClosures != "" {
		w.ui.Note("%s", w.inClosures)
	}
	w.reasons, w.skipped, w.inClosures = nil, map[string][]string{}, ""
}

func (w *pushWatcher) done(worker int, o client.Outcome) {
	line, event := describe(o)
	w.about(event)
	if o.Kind == client.Failed {
		w.mu.Lock()
		w.hints = explain(at(w.remote, o.Err)).hints
		w.mu.Unlock()
	}
	switch {
	case o.Kind == client.Present || o.Kind == client.Upstream:
		if !w.ui.JSON() {
			w.skip(o)
			return
		}
	case o.Kind == client.Planned && !w.ui.JSON():
		if w.cmd.Verbose && o.New > 0 {
			w.ui.Note("%s: %s of %s are new to the server", o.Path.Base(), ui.Size(o.New), ui.Size(o.NarSize))
		}
		w.ui.Data("%s", o.Path)
		return
	case o.Kind == client.Skipped && worker < 0 && !w.ui.JSON():
		w.skip(o)
		return
	}
	if worker >= 0 || o.Kind == client.Pushed || o.Kind == client.Deduplicated || o.Kind == client.Failed {
		w.progress.Done(worker, line, event)
		return
	}
	w.event(line, event)
}

func (w *pushWatcher) pinned(p client.Pin) {
	w.event(pinned(&p, w.cache), map[string]any{
		"event": "pinned", "pin": p.Name, "revision": p.Revision, "store_path": p.StorePath, "waiting": p.Waiting,
	})
}

// below tells of paths that are there and were not asked about one by one.
func (w *pushWatcher) below(paths int, orMore bool) {
	text := "part of closures that are in the cache"
	if orMore {
		text += ", with others"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inClosures = fmt.Sprintf("skipped %s: %s", ui.Plural(paths, "path", "paths"), text)
}

func (w *pushWatcher) skip(o client.Outcome) {
	reason := "already in the cache"
	switch o.Kind {
	case client.Upstream:
		reason = "signed by upstream key " + o.Key
	case client.Skipped:
		reason = o.Err.Error()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.reasons, reason) {
		w.reasons = append(w.reasons, reason)
	}
	w.skipped[reason] = append(w.skipped[reason], o.Path.Base())
}

// about says in an event which cache it is about, if that is not clear.
func (w *pushWatcher) about(event map[string]any) {
	if w.several {
		event["cache"] = w.cache
	}
}

// event prints above the progress, if there is one.
func (w *pushWatcher) event(line string, event map[string]any) {
	w.about(event)
	if w.ui.JSON() {
		_ = w.ui.Value(event) // strings and numbers always encode
		return
	}
	if line != "" {
		w.ui.Note("%s", line)
	}
}

// describe puts an outcome in words, and in JSON.
func describe(o client.Outcome) (string, map[string]any) {
	event := map[string]any{"event": string(o.Kind), "store_path": o.Path.String(), "nar_bytes": o.NarSize}
	base := o.Path.Base()
	switch o.Kind {
	case client.Failed, client.Skipped:
		event["err"] = o.Err.Error()
		if o.Kind == client.Skipped {
			return fmt.Sprintf("skipped %s: %v", base, o.Err), event
		}
		event["attempts"] = o.Attempts
		return fmt.Sprintf("failed %s: %s", base, explain(o.Err).sentence), event
	case client.Upstream:
		event["key"] = o.Key
	case client.Planned:
		if o.Counted {
			event["new_bytes"], event["deduplicated_bytes"] = o.New, o.NarSize-o.New
		}
	case client.Pushed, client.Deduplicated:
		event["attempts"], event["dur_seconds"] = o.Attempts, o.Took.Seconds()
		detail := ui.Size(o.NarSize)
		if o.FileSize > 0 {
			event["file_bytes"] = o.FileSize
		}
		if o.Counted {
			event["new_bytes"], event["deduplicated_bytes"] = o.New, o.NarSize-o.New
			event["compressed_bytes"], event["sent_bytes"] = o.Compressed, o.Sent
			detail += ", " + ui.Size(o.New) + " new"
		}
		if o.Sent > 0 {
			detail += ", sent " + ui.Size(o.Sent)
		}
		if rate := ui.Rate(o.NarSize, o.Took); rate != "" && o.NarSize >= 1<<20 {
			detail += ", " + rate
		}
		if o.Deduplicated >= 0 {
			event["deduplicated"] = o.Deduplicated
			if percent := int(o.Deduplicated * 100); percent > 0 {
				detail += fmt.Sprintf(", %d%% deduplicated", percent)
			}
		}
		return fmt.Sprintf("pushed %s (%s)", base, detail), event
	}
	return "", event
}

func (w *pushWatcher) close() {
	if w.progress != nil {
		w.progress.Close()
	}
	w.flush()
}

// summary tells what became of all paths; err is what ended the push.
func (w *pushWatcher) summary(r config.Remote, result client.Result, err error) {
	if w.ui.JSON() {
		event := map[string]any{
			"event": "done", "pushed": result.Pushed, "planned": result.Planned, "present": result.Present, "present_in_closures": result.Closures, "upstream": result.Upstream,
			"failed": result.Failed, "skipped": result.Skipped, "pinned": result.Pinned, "unpinned": result.Unpinned, "nar_bytes": result.Bytes,
			"new_bytes": result.New, "deduplicated_bytes": result.Deduplicated, "compressed_bytes": result.Compressed, "sent_bytes": result.Sent,
			"logs": result.Logs, "dur_seconds": result.Took.Seconds(),
		}
		if err != nil {
			event["err"] = err.Error()
		}
		w.event("", event)
		return
	}
	if w.cmd.DryRun {
		if result.Planned > 0 {
			fresh := "" // unless the server could say
			if result.Counted == result.Planned {
				fresh = fmt.Sprintf(", of which %s are new to the server", ui.Size(result.New))
			}
			w.ui.Note("would push %s (%s)%s", ui.Plural(result.Planned, "path", "paths"), ui.Size(result.Bytes), fresh)
		}
		return
	}
	if result == (client.Result{Took: result.Took}) {
		return
	}
	head := fmt.Sprintf("nothing pushed to cache %q", r.Cache)
	if result.Pushed > 0 {
		size := ui.Size(result.Bytes)
		if result.Counted > 0 {
			size = fmt.Sprintf("%s, %s of it new, %s deduplicated, %s compressed, %s sent", size, ui.Size(result.New), ui.Size(result.Deduplicated), ui.Size(result.Compressed), ui.Size(result.Sent))
		}
		head = fmt.Sprintf("pushed %s (%s) to cache %q in %s", ui.Plural(result.Pushed, "path", "paths"), size, r.Cache, ui.Duration(result.Took))
	}
	logs := "with %d build logs"
	if result.Logs == 1 {
		logs = "with %d build log"
	}
	var rest []string
	for _, part := range []struct {
		n    int
		text string
	}{
		{result.Present, "%d already there"},
		{result.Upstream, "%d in upstream caches"},
		{result.Logs, logs},
		{result.Failed, "%d failed"},
		{result.Skipped, "%d not tried"},
	} {
		if part.n > 0 {
			rest = append(rest, fmt.Sprintf(part.text, part.n))
		}
	}
	if len(rest) > 0 {
		head += ": " + strings.Join(rest, ", ")
	}
	w.ui.Note("%s", head)
}

// incomplete is the error of a push of which some paths failed, with what is to be done about
// the last of them.
func (w *pushWatcher) incomplete(result client.Result) error {
	if result.Pushed+result.Pinned == 0 {
		return &hintedError{fmt.Errorf("nothing could be pushed, %d failed", result.Failed), w.hints}
	}
	return &hintedError{&partlyError{Done: result.Pushed, Failed: result.Failed + result.Skipped, What: "path"}, w.hints}
}
