package gslb

import (
	"errors"
	"fmt"

	"github.com/miekg/dns"
)

// A name is a domain name in wire form (RFC 1035 section 3.1), uncompressed and
// in lower case, so that equal names are equal strings and a parent is a suffix.
type name string

// parseName reads a name in presentation form, relative to the root.
func parseName(text string) (name, error) {
	var buf [255]byte
	if text == "" {
		return "", errors.New("a name is empty")
	}
	end, err := dns.PackDomainName(dns.Fqdn(text), buf[:], 0, nil, false)
	if err != nil {
		return "", fmt.Errorf("%q is not a domain name", text)
	}
	return lower(buf[:end]), nil
}

// lower returns the name of wire bytes. Lengths are below every letter, so they
// stay as they are.
func lower(wire []byte) name {
	var buf [255]byte
	for i, c := range wire {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	return name(buf[:len(wire)])
}

// parent returns the name without its first label; n is not the root.
func (n name) parent() name { return n[1+n[0]:] }

// wildcard returns the name "*" below n, or "" if that is too long to exist.
func (n name) wildcard() name {
	if len(n)+2 > 255 {
		return ""
	}
	return "\x01*" + n
}

// isWildcard reports whether the first label is "*".
func (n name) isWildcard() bool { return len(n) > 2 && n[:2] == "\x01*" }

// under reports whether n is zone or below it.
func (n name) under(zone name) bool {
	for ; len(n) > len(zone); n = n.parent() {
	}
	return n == zone
}

// below returns the names from the one right below zone down to n, which is
// under zone.
func (n name) below(zone name) []name {
	count := 0
	for m := n; len(m) > len(zone); m = m.parent() {
		count++
	}
	names := make([]name, count)
	for m := n; len(m) > len(zone); m = m.parent() {
		count--
		names[count] = m
	}
	return names
}

// String returns the presentation form, with the final dot.
func (n name) String() string {
	text, _, err := dns.UnpackDomainName([]byte(n), 0)
	if err != nil {
		return fmt.Sprintf("%q", string(n))
	}
	return text
}
