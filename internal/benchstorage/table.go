package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// figures are those of one generation.
type figures struct {
	stored  int64 // bytes of objects added
	index   int64 // bytes of rows added
	wire    int64 // bytes served
	passed  int64 // of them, copied as they were stored
	ingest  time.Duration
	pull    time.Duration
	fetched int64 // bytes read from the bucket for a pull
	puts    int64
	gets    int64
}

type result struct {
	label  string
	peer   string // program, if it is not ours
	chosen bool
	single bool // one chunk of 64 KiB a frame
	gen    [len(generations)]figures
}

type table struct {
	out   io.Writer
	plain [len(generations)]int64
	rows  []result
}

func (t *table) header(nars int) {
	fmt.Fprintf(t.out, "%d NARs a generation: a %s, b %s, c %s MB plain.\n\n", nars, mb(t.plain[0]), mb(t.plain[1]), mb(t.plain[2]))
	fmt.Fprintln(t.out, "Per generation, a / b / c. Stored, index, wire and fetched in MB (10^6 bytes), CPU in ms per MB of NAR.")
	fmt.Fprintln(t.out)
	fmt.Fprintln(t.out, "| | stored | sum | index | wire | re-encoded, % | ingest CPU | cold pull CPU | fetched | PUTs | GETs of a pull |")
	fmt.Fprintln(t.out, "|---|---|---|---|---|---|---|---|---|---|---|")
}

func (t *table) row(r result) {
	t.rows = append(t.rows, r)
	col := func(f func(i int, g figures) string) string {
		var parts []string
		for i, g := range r.gen {
			parts = append(parts, f(i, g))
		}
		return strings.Join(parts, " / ")
	}
	perMB := func(d time.Duration, i int) string {
		if d == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", d.Seconds()*1e3/(float64(t.plain[i])/1e6))
	}
	label := r.label
	if r.chosen {
		label = "**" + label + "**"
	}
	fmt.Fprintf(t.out, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", label,
		col(func(_ int, g figures) string { return mb(g.stored) }), mb(r.stored()),
		col(func(_ int, g figures) string { return fmt.Sprintf("%.2f", float64(g.index)/1e6) }),
		col(func(_ int, g figures) string { return mb(g.wire) }),
		col(func(_ int, g figures) string {
			if r.peer != "" {
				return "-"
			}
			return fmt.Sprintf("%.0f", 100*float64(g.wire-g.passed)/float64(max(g.wire, 1)))
		}),
		col(func(i int, g figures) string { return perMB(g.ingest, i) }),
		col(func(i int, g figures) string { return perMB(g.pull, i) }),
		col(func(_ int, g figures) string { return mb(g.fetched) }),
		col(func(_ int, g figures) string { return fmt.Sprint(g.puts) }),
		col(func(_ int, g figures) string { return fmt.Sprint(g.gets) }))
}

func (r result) stored() int64 {
	sum := int64(0)
	for _, g := range r.gen {
		sum += g.stored
	}
	return sum
}

func mb(n int64) string {
	if n < 1e8 {
		return fmt.Sprintf("%.1f", float64(n)/1e6)
	}
	return fmt.Sprintf("%.0f", float64(n)/1e6)
}

// limits compares what was chosen with what was asked for.
func (t *table) limits() {
	var chosen, single, xz, zstd *result
	for i := range t.rows {
		switch r := &t.rows[i]; {
		case r.chosen:
			chosen = r
		case r.single:
			single = r
		case r.peer == "xz":
			xz = r
		case r.peer == "zstd":
			zstd = r
		}
	}
	if chosen == nil || single == nil || xz == nil || zstd == nil {
		return
	}
	fmt.Fprintln(t.out)
	line := func(what string, got, limit float64, unit string) {
		verdict := "kept"
		if got > limit {
			verdict = "**missed**"
		}
		fmt.Fprintf(t.out, "- %s: %.2f%s, limit %.2f%s: %s\n", what, got, unit, limit, unit, verdict)
	}
	ratio := func(a, b int64) float64 { return float64(a) / float64(b) }
	line("stored, against one 64 KiB chunk a frame", ratio(chosen.stored(), single.stored()), 0.9, " x")
	line("stored, against xz", ratio(chosen.stored(), xz.stored()), 1, " x")
	line("stored, against zstd", ratio(chosen.stored(), zstd.stored()), 1, " x")
	first := ratio(chosen.gen[0].wire, t.plain[0])
	for i := 1; i < len(generations); i++ {
		line(fmt.Sprintf("wire bytes per plain byte of %c, against a", generations[i]), ratio(chosen.gen[i].wire, t.plain[i])/first, 1.1, " x")
	}
	for i := 1; i < len(generations); i++ {
		line(fmt.Sprintf("CPU of a cold pull of %c", generations[i]), chosen.gen[i].pull.Seconds()*1e3/(float64(t.plain[i])/1e6), 4, " ms/MB")
	}
}
