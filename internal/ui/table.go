package ui

import (
	"strings"
	"unicode/utf8"
)

// Table prints rows under a header on standard output, columns aligned, two spaces
// between them and none at the end of a line. A nil header prints the rows alone.
func (p *Printer) Table(header []string, rows [][]string) {
	p.Raw([]byte(FormatTable(header, rows)))
}

// FormatTable lays out a table as Table prints it.
func FormatTable(header []string, rows [][]string) string {
	all := rows
	if header != nil {
		all = append([][]string{header}, rows...)
	}
	var widths []int
	for _, row := range all {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}
