package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// redrawEvery is how often the foot of the terminal is redrawn: often enough to look
// alive, seldom enough to cost nothing over a slow ssh.
const redrawEvery = 100 * time.Millisecond

// ProgressOptions describes the work whose progress is shown.
type ProgressOptions struct {
	Verb    string           // what is done to an item: "pushed"
	Items   int              // how many there are
	Bytes   int64            // their size together; 0: unknown
	Workers int              // how many are in hand at once
	Now     func() time.Time // nil: time.Now
}

// Progress shows how far several workers have come.
type Progress struct {
	p   *Printer
	o   ProgressOptions
	now func() time.Time

	stop chan struct{} // closed by Close
	wg   sync.WaitGroup

	// The fields below are guarded by p.mu.
	start time.Time
	tasks []task
	items int
	bytes int64
	drawn int // lines now on the screen
}

type task struct {
	name string
	size int64
	done int64
}

// Progress begins to show the work described by o. The caller must Close it.
func (p *Printer) Progress(o ProgressOptions) *Progress {
	g := &Progress{p: p, o: o, now: o.Now, stop: make(chan struct{}), tasks: make([]task, max(1, o.Workers))}
	if g.now == nil {
		g.now = time.Now
	}
	g.start = g.now()
	if p.size == nil || p.quiet || p.json {
		return g
	}
	p.mu.Lock()
	p.live = g
	p.mu.Unlock()
	g.wg.Go(g.redraw)
	return g
}

// Start says that worker has taken up an item of size bytes (0: unknown).
func (g *Progress) Start(worker int, name string, size int64) {
	g.p.mu.Lock()
	defer g.p.mu.Unlock()
	g.tasks[worker] = task{name: name, size: size}
}

// Add says that worker has got n bytes further.
func (g *Progress) Add(worker int, n int64) {
	g.p.mu.Lock()
	defer g.p.mu.Unlock()
	g.tasks[worker].done += n
	g.bytes += n
}

// Done says that worker, or with -1 somebody who is not shown, has finished an item; line is what a person should read
// about it, event what a machine should.
func (g *Progress) Done(worker int, line string, event any) {
	g.p.mu.Lock()
	g.items++
	if worker >= 0 {
		g.tasks[worker] = task{}
	}
	g.p.mu.Unlock()
	g.Event(line, event)
}

// Event reports something that is no worker's item: a path that was skipped, a retry.
func (g *Progress) Event(line string, event any) {
	if g.p.json {
		if event != nil {
			_ = g.p.Value(event)
		}
		return
	}
	if line != "" {
		g.p.Note("%s", line)
	}
}

// Close takes the progress off the screen and stops redrawing.
func (g *Progress) Close() {
	select {
	case <-g.stop:
		return
	default:
	}
	close(g.stop)
	g.wg.Wait()
	g.p.mu.Lock()
	defer g.p.mu.Unlock()
	if g.p.live == g {
		g.erase()
		g.p.live = nil
	}
}

func (g *Progress) redraw() {
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		select {
		case <-g.stop:
			return
		case <-tick.C:
			g.p.mu.Lock()
			g.erase()
			g.draw()
			g.p.mu.Unlock()
		}
	}
}

// erase removes the drawn lines; the caller holds p.mu.
func (g *Progress) erase() {
	if g.drawn == 0 {
		return
	}
	_, _ = fmt.Fprintf(g.p.err, "\x1b[%dA\x1b[J", g.drawn)
	g.drawn = 0
}

// draw writes the lines; the caller holds p.mu and has erased the old ones.
func (g *Progress) draw() {
	lines := g.lines(g.p.size())
	_, _ = io.WriteString(g.p.err, strings.Join(lines, "\n")+"\n")
	g.drawn = len(lines)
}

// lines formats the workers that have something in hand, and the total. Never more
// lines than the screen has: moving the cursor up stops at its top.
func (g *Progress) lines(width, height int) []string {
	var lines []string
	for _, t := range g.tasks {
		if t.name == "" || len(lines) >= height-2 {
			continue
		}
		state := Size(t.done)
		if t.size > 0 {
			state = fmt.Sprintf("%3d%% of %s", min(100, t.done*100/t.size), Size(t.size))
		}
		lines = append(lines, clip(fmt.Sprintf("  %-20s %s", state, t.name), width))
	}
	took := g.now().Sub(g.start)
	total := fmt.Sprintf("%d of %s %s, %s", g.items, Plural(g.o.Items, "path", "paths"), g.o.Verb, Size(g.bytes))
	if g.o.Bytes > 0 {
		total += " of " + Size(g.o.Bytes)
	}
	if rate := Rate(g.bytes, took); rate != "" {
		total += ", " + rate
	}
	return append(lines, clip(total, width))
}

// clip cuts a line so that it fits the terminal; a wrapped line could not be erased.
func clip(s string, width int) string {
	if utf8.RuneCountInString(s) < width {
		return s
	}
	runes := []rune(s)
	return string(runes[:max(0, width-2)]) + "…"
}
