package http1

import (
	"unsafe"

	"anyedge/pop/proxy/exchange"
)

// maxFields bounds the field lines of a head or a trailer section of an origin,
// and the trailers that a message announces.
const maxFields = 128

// The classes of bytes.
const (
	isToken  = 1 << iota // RFC 9110, 5.6.2
	isText               // of a field's value: no control but the tab (RFC 9110, 5.5)
	isTarget             // of a request target: visible ASCII
	isHost               // of a host and port (RFC 3986, 3.2.2, 3.2.3)
)

var classes = func() (t [256]uint8) {
	for c := range 256 {
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if alphanumeric {
			t[c] |= isToken | isHost
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			t[c] |= isText
		}
		if '!' <= c && c <= '~' {
			t[c] |= isTarget
		}
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] |= isToken
	}
	for _, c := range "-._~!$&'()*+;=%:[]" {
		t[c] |= isHost
	}
	return t
}()

// all reports whether all bytes are of a class.
func all[T string | []byte](s T, class uint8) bool {
	for i := range len(s) {
		if classes[s[i]]&class == 0 {
			return false
		}
	}
	return true
}

// text returns b as a string that shares its memory.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// fault is why a message is refused. A request is answered with the status.
type fault struct {
	status int
	reason string
}

// Error implements [error].
func (f *fault) Error() string { return f.reason }

var (
	faultName     = &fault{400, "a field's name is malformed"}
	faultValue    = &fault{400, "a field's value holds a control character"}
	faultFold     = &fault{400, "a field's line is folded"}
	faultTooMany  = &fault{431, "too many fields"}
	faultTooLarge = &fault{431, "the head is too large"}
	faultNewline  = &fault{400, "a line of the head does not end in CR LF"}
	faultControl  = &fault{400, "the head holds a control character"}
)

// parseFields calls got for each line of a section, which ends in an empty
// line, has CR LF at the end of each, and may have most lines before that.
func parseFields(section []byte, most int, got func(name, value string) error) error {
	for n := 0; len(section) > 2; n++ {
		if n == most {
			return faultTooMany
		}
		name, value, size, err := parseField(section)
		if err != nil {
			return err
		}
		if err := got(name, value); err != nil {
			return err
		}
		section = section[size:]
	}
	return nil
}

// parseField reads the field line at the start of a section and returns the
// line's size.
func parseField(section []byte) (name, value string, size int, err error) {
	i := 0
	for classes[section[i]]&isToken != 0 {
		i++
	}
	switch {
	case i == 0 && (section[0] == ' ' || section[0] == '\t'):
		return "", "", 0, faultFold // RFC 9112, 5.2
	case i == 0 || section[i] != ':':
		// White space before the colon included (RFC 9112, 5.1).
		return "", "", 0, faultName
	}
	name = text(section[:i])
	i++
	for section[i] == ' ' || section[i] == '\t' {
		i++
	}
	start := i
	for classes[section[i]]&isText != 0 {
		i++
	}
	// The only line feed is behind the carriage return at the line's end.
	if section[i] != '\r' || section[i+1] != '\n' {
		return "", "", 0, faultValue
	}
	end := i
	for end > start && (section[end-1] == ' ' || section[end-1] == '\t') {
		end--
	}
	return name, text(section[start:end]), i + 2, nil
}

// parseTrailers reads a trailer section of at most so many lines into fields,
// whatever they held. Those that may not travel in trailers are left out.
func parseTrailers(section []byte, most int, fields *exchange.Fields) error {
	*fields = (*fields)[:0]
	return parseFields(section, most, func(name, value string) error {
		if exchange.TrailerAllowed(name) {
			fields.Add(name, value)
		}
		return nil
	})
}
