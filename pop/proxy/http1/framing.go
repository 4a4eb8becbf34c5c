package http1

import (
	"strings"

	"anyedge/pop/proxy/exchange"
)

var (
	faultLength      = &fault{400, "Content-Length is malformed"}
	faultLengths     = &fault{400, "there are differing values of Content-Length"}
	faultBoth        = &fault{400, "there are both Transfer-Encoding and Content-Length"}
	faultCodings     = &fault{400, "chunked is not the last transfer coding, and there once"}
	faultCoding      = &fault{501, "the transfer coding is unknown"}
	faultOldEncoding = &fault{400, "Transfer-Encoding in a version that has none"}
	faultHosts       = &fault{400, "there is more than one Host"}
	faultHost        = &fault{400, "Host is malformed"}
	faultExpectation = &fault{417, "the expectation is unknown"}
)

// framing is what a head's fields say about the message and its connection.
type framing struct {
	length   int64 // of Content-Length; -1 if there is none
	encoded  bool  // there is a Transfer-Encoding
	chunked  int   // how often it names chunked
	last     bool  // chunked is the last coding so far
	unknown  bool  // it names another coding
	empty    bool  // it has an element without a name
	hosts    int
	host     string
	close    bool   // Connection names close
	keep     bool   // Connection names keep-alive
	expect   bool   // Expect names 100-continue
	expected bool   // there is an Expect
	dated    bool   // there is a Date
	upgrade  string // of the first Upgrade
	trailers exchange.Fields
}

// reset makes f ready for the next head.
func (f *framing) reset() {
	*f = framing{length: -1, trailers: f.trailers[:0]}
}

// got takes one field line. It returns whether the field is about framing, and
// so not one of the exchange's.
func (f *framing) got(name, value string) (taken bool, err error) {
	switch len(name) {
	case 4:
		if exchange.EqualName(name, "Host") {
			f.hosts++
			f.host = value
			return true, nil
		}
		f.dated = f.dated || exchange.EqualName(name, "Date")
	case 6:
		if exchange.EqualName(name, "Expect") {
			f.expected = true
			f.expect = f.expect || exchange.EqualName(value, "100-continue")
		}
	case 7:
		if exchange.EqualName(name, "Trailer") {
			f.announce(value)
			return true, nil
		}
		if f.upgrade == "" && exchange.EqualName(name, "Upgrade") {
			f.upgrade = value
		}
	case 10:
		if exchange.EqualName(name, "Connection") {
			f.options(value)
		}
	case 14:
		if exchange.EqualName(name, "Content-Length") {
			return true, f.gotLength(value)
		}
	case 17:
		if exchange.EqualName(name, "Transfer-Encoding") {
			f.gotCodings(value)
			return true, nil
		}
	}
	return false, nil
}

// gotLength reads a Content-Length: digits only (RFC 9110, 8.6). Repeating the
// same value is harmless.
func (f *framing) gotLength(value string) error {
	if value == "" || len(value) > 18 {
		return faultLength
	}
	n := int64(0)
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			return faultLength
		}
		n = 10*n + int64(value[i]-'0')
	}
	if f.length >= 0 && f.length != n {
		return faultLengths
	}
	f.length = n
	return nil
}

// gotCodings reads a line of Transfer-Encoding (RFC 9112, 6.1).
func (f *framing) gotCodings(value string) {
	f.encoded = true
	for coding := range strings.SplitSeq(value, ",") {
		coding = strings.Trim(coding, " \t")
		f.last = exchange.EqualName(coding, "chunked")
		switch {
		case f.last:
			f.chunked++
		case coding == "":
			// Empty elements of lists are harmless elsewhere. Here they are a
			// common disguise.
			f.empty = true
		default:
			f.unknown = true
		}
	}
}

// codings returns what is wrong with Transfer-Encoding and its company.
func (f *framing) codings(old bool) error {
	switch {
	case !f.encoded:
		return nil
	case old:
		return faultOldEncoding // RFC 9112, 6.1
	case f.length >= 0:
		return faultBoth // RFC 9112, 6.3: an attempt at smuggling
	case f.chunked > 1 || f.chunked == 1 && !f.last || f.empty:
		return faultCodings
	case f.unknown:
		return faultCoding
	}
	return nil
}

// options reads a line of Connection.
func (f *framing) options(value string) {
	for option := range elements(value) {
		f.close = f.close || exchange.EqualName(option, "close")
		f.keep = f.keep || exchange.EqualName(option, "keep-alive")
	}
}

// announce notes the names that Trailer says will come.
func (f *framing) announce(value string) {
	for name := range elements(value) {
		if all(name, isToken) && exchange.TrailerAllowed(name) && len(f.trailers) < maxFields {
			f.trailers.Add(name, "")
		}
	}
}

// elements returns the elements of a list, without those that are empty.
func elements(list string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for list != "" {
			var element string
			element, list, _ = strings.Cut(list, ",")
			element = strings.Trim(element, " \t")
			if element != "" && !yield(element) {
				return
			}
		}
	}
}
