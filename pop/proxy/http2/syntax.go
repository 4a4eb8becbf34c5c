package http2

import (
	"strconv"
	"strings"
)

func parseLength(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// validValue reports whether a field's value is one (RFC 9113, 8.2.1, and no
// control bytes at all but tabs).
func validValue(s string) bool {
	if s == "" {
		return true
	}
	if first, last := s[0], s[len(s)-1]; first == ' ' || first == '\t' || last == ' ' || last == '\t' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// Bytes of tokens (RFC 9110, 5.6.2).
var tokens = func() (t [256]bool) {
	for c := range t {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			c < 0x80 && strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
	}
	return t
}()

func token(s string) bool {
	for i := range len(s) {
		if !tokens[s[i]] {
			return false
		}
	}
	return s != ""
}

// validName reports whether a field's name is one, in lower case (RFC 9113, 8.2).
func validName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !tokens[c] || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return s != ""
}

// validPath reports whether s can be the target of a request line.
func validPath(s string) bool {
	if s == "*" {
		return true
	}
	if s == "" || s[0] != '/' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// validAuthority reports whether s can be a host with an optional port: neither
// empty, nor with user information (RFC 9113, 8.3.1), nor a delimiter.
func validAuthority(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`/?#@\"<>^{}|`+"`", c) >= 0 {
			return false
		}
	}
	return s != ""
}
