package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// row is one printed figure.
type row struct {
	scenario, figure, celler, bound, ratio, target string
}

const (
	tableBegin = "<!-- bench:begin -->"
	tableEnd   = "<!-- bench:end -->"
)

// add records a figure with what bounds it; empty strings print as a dash.
func (l *lab) add(scenario, figure, celler, bound, ratio, target string) {
	l.rows = append(l.rows, row{scenario, figure, celler, bound, ratio, target})
	fmt.Fprintf(os.Stderr, "bench:   %s: %s = %s (%s) %s %s\n", scenario, figure, celler, bound, ratio, target)
}

// target renders a limit with its verdict.
func target(met bool, text string) string {
	if met {
		return text + ": met"
	}
	return text + ": **missed**"
}

func (l *lab) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d cores, %s, %s.\n\n", runtime.NumCPU(), runtime.Version(), cpuModel())
	b.WriteString("| scenario | figure | celler | what bounds it, same run | ratio | target |\n|---|---|---|---|---|---|\n")
	dash := func(s string) string {
		if s == "" {
			return "–"
		}
		return s
	}
	for _, r := range l.rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.scenario, r.figure, dash(r.celler), dash(r.bound), dash(r.ratio), dash(r.target))
	}
	return b.String()
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "unknown processor"
}

// keepOthers returns table with those rows of an older one whose scenarios are not in it,
// which were not run this time: they come first.
func keepOthers(table, older string) string {
	label := func(line string) (string, bool) {
		cells := strings.Split(line, " | ")
		name := strings.TrimPrefix(cells[0], "| ")
		return name, len(cells) == 6 && name != "scenario"
	}
	now := map[string]bool{}
	for line := range strings.Lines(table) {
		if name, ok := label(line); ok {
			now[name] = true
		}
	}
	var kept strings.Builder
	for line := range strings.Lines(older) {
		if name, ok := label(line); ok && !now[name] {
			kept.WriteString(line)
		}
	}
	const head = "|---|---|---|---|---|---|\n"
	return strings.Replace(table, head, head+kept.String(), 1)
}

// replaceTable puts table between the markers of a Markdown file. If it is only a part, the
// rows of other scenarios stay.
func replaceTable(file, table string, part bool) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := string(b)
	i, j := strings.Index(text, tableBegin), strings.Index(text, tableEnd)
	if i < 0 || j < i {
		return fmt.Errorf("replace the table of %s: it has no line %q followed by %q", file, tableBegin, tableEnd)
	}
	if part {
		table = keepOthers(table, text[i:j])
	}
	text = text[:i+len(tableBegin)] + "\n" + table + text[j:]
	return os.WriteFile(file, []byte(text), 0o644)
}

// median of a non-empty list; the list is sorted in place.
func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func mbps(v float64) string { return fmt.Sprintf("%.0f MB/s", v) }
