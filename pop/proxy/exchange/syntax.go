package exchange

import (
	"strconv"
	"strings"
)

// What HTTP/2 and HTTP/3 ask of the fields of a head, which they frame without
// characters of their own: RFC 9113 section 8 and RFC 9114 section 4 say the same.

// ParseLength reads the value of a Content-Length: digits only.
func ParseLength(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// ValidValue reports whether a field's value is one (RFC 9113, 8.2.1; RFC 9114,
// 4.2 and 10.3), and has no control bytes at all but tabs.
func ValidValue(s string) bool {
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

// tokens are the bytes of tokens (RFC 9110, 5.6.2).
var tokens = func() (t [256]bool) {
	for c := range t {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			c < 0x80 && strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
	}
	return t
}()

// Token reports whether s is a token (RFC 9110, 5.6.2), such as a method.
func Token(s string) bool {
	for i := range len(s) {
		if !tokens[s[i]] {
			return false
		}
	}
	return s != ""
}

// ValidName reports whether a field's name is one, in lower case (RFC 9113, 8.2;
// RFC 9114, 4.2).
func ValidName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !tokens[c] || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return s != ""
}

// ValidPath reports whether s can be the target of a request line.
func ValidPath(s string) bool {
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

// ValidAuthority reports whether s can be a host with an optional port: neither
// empty, nor with user information (RFC 9113, 8.3.1; RFC 9114, 4.3.1), nor a
// delimiter.
func ValidAuthority(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`/?#@\"<>^{}|`+"`", c) >= 0 {
			return false
		}
	}
	return s != ""
}
