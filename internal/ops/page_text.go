package ops

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// writeText renders the view as aligned plain text. Whatever is not printable
// is replaced, so that a cell cannot send commands to a terminal.
func (v view) writeText(b *bytes.Buffer) {
	fmt.Fprintf(b, "%s: %s\n%s\n", printable(v.Title), v.Summary, v.Time())
	if v.Error != "" {
		fmt.Fprintf(b, "\n%s\n", printable(v.Error))
	}
	for _, s := range v.Sections {
		fmt.Fprintf(b, "\n%s\n", printable(s.Title))
		if s.Note != "" {
			fmt.Fprintf(b, "%s\n", printable(s.Note))
		}
		if len(s.Cells) == 0 {
			b.WriteString("  none\n")
			continue
		}
		rows := [][]string{make([]string, len(s.Columns))}
		for i, c := range s.Columns {
			rows[0][i] = strings.ToUpper(printable(c))
		}
		for _, cells := range s.Cells {
			row := make([]string, len(cells))
			for i, c := range cells {
				row[i] = printable(c.Text)
				if row[i] == "" {
					row[i] = "-" // keeps columns countable
				}
			}
			rows = append(rows, row)
		}
		writeColumns(b, rows)
	}
}

// writeColumns pads every column but the last to its widest cell.
func writeColumns(b *bytes.Buffer, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, text := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, text := range row {
			line.WriteString("  " + text)
			line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return utf8.RuneError
		}
		return r
	}, text)
}
