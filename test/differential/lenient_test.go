package differential

import (
	"bytes"
	"strconv"
	"strings"
)

// leniency is a server that reads requests with one or more of the liberties
// that real ones take. What a proxy forwards must mean the same to all of them.
type leniency struct {
	name string

	lf          bool // a bare LF ends a line
	cr          bool // a bare CR ends a line
	spaces      bool // white space around a field name does not count
	folds       bool // a folded line continues the value before
	flattens    bool // a folded line is a field of its own
	underscores bool // "_" in a field name is "-"
	controls    bool // a control character ends a value
	mentions    bool // any mention of chunked in Transfer-Encoding means chunked
	literal     bool // only "chunked", spelled so, means chunked
	old         bool // HTTP/1.0 has no chunked
	lengthWins  bool // Content-Length wins over Transfer-Encoding
	lastLength  bool // the last Content-Length counts, else the first
	numbers     bool // numbers are read as C does: white space, sign, base, junk behind
}

// lenients are the liberties one by one, and the most of them at once.
var lenients = []leniency{
	{name: "a bare LF ends a line", lf: true},
	{name: "a bare CR ends a line", cr: true},
	{name: "white space around names is dropped", spaces: true},
	{name: "folded lines continue the value", folds: true},
	{name: "folded lines are fields", flattens: true},
	{name: "underscores are dashes", underscores: true},
	{name: "a control character ends a value", controls: true},
	{name: "any mention of chunked counts", mentions: true},
	{name: "only the literal chunked counts", literal: true},
	{name: "HTTP/1.0 has no chunked", old: true},
	{name: "the length wins over chunked", lengthWins: true},
	{name: "the last length counts", lastLength: true},
	{name: "numbers as C reads them", numbers: true},
	{name: "all liberties", lf: true, cr: true, spaces: true, flattens: true, underscores: true, controls: true,
		mentions: true, lastLength: true, numbers: true},
}

// read reads the first request of a connection. It returns the body, how many
// bytes belong to the request, and whether it is complete.
func (l leniency) read(b []byte) (body []byte, n int, complete bool) {
	var version string
	var codings, lengths []string
	first := true
	for {
		line, next, ok := l.line(b, n)
		if !ok {
			return nil, len(b), false
		}
		n = next
		if first {
			if line == "" {
				continue
			}
			version, first = line[strings.LastIndexByte(line, ' ')+1:], false
			continue
		}
		if line == "" {
			break
		}
		for l.folds && n < len(b) && (b[n] == ' ' || b[n] == '\t') {
			more, next, ok := l.line(b, n)
			if !ok {
				return nil, len(b), false
			}
			line, n = line+" "+strings.TrimSpace(more), next
		}
		switch name, value := l.field(line); name {
		case "transfer-encoding":
			codings = append(codings, value)
		case "content-length":
			lengths = append(lengths, value)
		}
	}
	length, known := l.length(lengths)
	if l.chunked(codings, version) && !(l.lengthWins && known) {
		return l.chunks(b, n)
	}
	end := min(n+length, len(b))
	return b[n:end], end, end == n+length
}

// line returns the line that starts at n, and where the next one does.
func (l leniency) line(b []byte, n int) (line string, next int, ok bool) {
	for i := n; i < len(b); i++ {
		switch {
		case b[i] == '\r' && i+1 < len(b) && b[i+1] == '\n':
			return string(b[n:i]), i + 2, true
		case b[i] == '\n' && l.lf, b[i] == '\r' && l.cr:
			return string(b[n:i]), i + 1, true
		}
	}
	return "", n, false
}

// field returns a field's name in lower case, and its value.
func (l leniency) field(line string) (name, value string) {
	if l.flattens {
		line = strings.TrimLeft(line, " \t")
	}
	name, value, _ = strings.Cut(line, ":")
	if l.spaces {
		name = strings.TrimFunc(name, func(c rune) bool { return c <= ' ' })
	}
	name = strings.ToLower(name)
	if l.underscores {
		name = strings.ReplaceAll(name, "_", "-")
	}
	value = strings.Trim(value, " \t")
	if l.controls {
		if i := strings.IndexFunc(value, func(c rune) bool { return c < ' ' && c != '\t' }); i >= 0 {
			value = value[:i]
		}
	}
	return name, value
}

func (l leniency) chunked(codings []string, version string) bool {
	if len(codings) == 0 || l.old && version == "HTTP/1.0" {
		return false
	}
	all := strings.Join(codings, ",")
	switch {
	case l.mentions:
		return strings.Contains(strings.ToLower(all), "chunked")
	case l.literal:
		return all == "chunked"
	}
	final := all[strings.LastIndexByte(all, ',')+1:]
	return strings.EqualFold(strings.TrimSpace(final), "chunked")
}

func (l leniency) length(lengths []string) (n int, known bool) {
	if len(lengths) == 0 {
		return 0, false
	}
	text := lengths[0]
	if l.lastLength {
		text = lengths[len(lengths)-1]
		text = strings.TrimSpace(text[strings.LastIndexByte(text, ',')+1:])
	} else {
		text, _, _ = strings.Cut(text, ",")
	}
	return l.number(text, 10)
}

// number reads a length. Without the liberty it is of digits only, and anything
// else counts as absent.
func (l leniency) number(text string, base int) (n int, ok bool) {
	if l.numbers {
		text = strings.TrimLeft(text, " \t\v\f\r\n")
		text = strings.TrimPrefix(text, "+")
		if base == 16 {
			text = strings.TrimPrefix(strings.TrimPrefix(text, "0x"), "0X")
		}
		digits := "0123456789"
		if base == 16 {
			digits += "abcdefABCDEF"
		}
		text = text[:len(text)-len(strings.TrimLeft(text, digits))]
	}
	v, err := strconv.ParseUint(text, base, 62)
	return int(v), err == nil
}

// chunks reads a chunked body that starts at n.
func (l leniency) chunks(b []byte, n int) (body []byte, end int, complete bool) {
	for {
		line, next, ok := l.line(b, n)
		if !ok {
			return body, len(b), false
		}
		text, _, _ := strings.Cut(line, ";")
		size, ok := l.number(strings.TrimSpace(text), 16)
		if !ok {
			return body, n, false
		}
		n = next
		if size == 0 {
			break
		}
		if size > len(b)-n {
			return append(body, b[n:]...), len(b), false
		}
		body, n = append(body, b[n:n+size]...), n+size
		for _, end := range []string{"\r\n", "\n", "\r"} { // and nothing at all is fine too
			if bytes.HasPrefix(b[n:], []byte(end)) {
				n += len(end)
				break
			}
		}
	}
	for {
		line, next, ok := l.line(b, n)
		if !ok {
			return body, len(b), false
		}
		n = next
		if line == "" {
			return body, n, true
		}
	}
}
