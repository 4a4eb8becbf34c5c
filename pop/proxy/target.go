package proxy

// readHost writes the host of an authority ("host[:port]") to buf as hosts are
// compared: in lower case, without port and without the root's dot. It returns
// false if the authority is malformed (RFC 3986, 3.2, without user information
// and percent-encoding, which no honest client sends in a host). An empty
// authority is well-formed.
func readHost(buf *[maxHost]byte, authority string) (host []byte, ok bool) {
	literal := len(authority) > 0 && authority[0] == '['
	n := 0
	i := 0
scan:
	for ; i < len(authority); i++ {
		c := authority[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.':
		case !literal && (c == '-' || c == '_'):
		case literal && (c == ':' || c == '[' && i == 0):
		case literal && c == ']':
			literal = false
			if n == maxHost {
				return nil, false
			}
			buf[n] = c
			n++
			i++
			break scan
		case c == ':':
			break scan
		default:
			return nil, false
		}
		if n == maxHost {
			return nil, false
		}
		buf[n] = c
		n++
	}
	if literal || !validPort(authority[i:]) || n == 0 && authority != "" {
		return nil, false
	}
	if n > 1 && buf[n-1] == '.' {
		n--
	}
	return buf[:n], true
}

// validPort reports whether s is empty, or a colon and up to five digits
// (RFC 3986, 3.2.3, allows none).
func validPort(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' || len(s) > 6 {
		return false
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// reading is one way to read a path, as far as matching looks at it: up to the
// byte behind the longest prefix. It has no empty segments.
type reading struct {
	buf [maxPrefix + 1]byte
	n   int
}

func (r *reading) bytes() []byte { return r.buf[:r.n] }

func (r *reading) add(c byte) {
	if c == '/' && r.n > 0 && r.buf[r.n-1] == '/' {
		return
	}
	if r.n < len(r.buf) {
		r.buf[r.n] = c
		r.n++
	}
}

// readPath reads the path before the query in both ways that [table] names. It
// returns false if the path must be refused. While the two readings are the
// same, only strict is written, and twofold is false.
func readPath(path string, strict, loose *reading) (twofold, ok bool) {
	if path == "*" { // OPTIONS on the server as a whole (RFC 9110, 7.1)
		strict.add('*')
		return false, true
	}
	if path == "" || path[0] != '/' {
		return false, false
	}
	s := segment{}
	inParameters := false
	for i := 0; i < len(path) && path[i] != '?'; i++ {
		c := path[i]
		if c == '#' {
			return false, false // a fragment is never sent (RFC 3986, 3.5)
		}
		decoded := c
		if c == '%' {
			if i+2 >= len(path) {
				return false, false
			}
			high, low := unhex(path[i+1]), unhex(path[i+2])
			if high > 15 || low > 15 {
				return false, false
			}
			decoded = high<<4 | low
		}
		if decoded < ' ' || decoded == 0x7f {
			return false, false
		}
		encoded := c == '%' && !unreserved(decoded)
		if !twofold && (encoded || c == '\\' || c == ';') {
			twofold = true
			*loose = *strict
		}

		if encoded {
			strict.add('%')
			strict.add(upper(path[i+1]))
			strict.add(upper(path[i+2]))
		} else {
			strict.add(decoded)
		}
		if c == '%' {
			i += 2
		}

		if decoded == '\\' {
			decoded = '/'
		}
		switch {
		case decoded == '/':
			inParameters = false
			if s.dots() {
				return false, false
			}
			s = segment{}
		case decoded == ';':
			inParameters = true
		case !inParameters:
			s.add(decoded)
		}
		if twofold && !inParameters {
			loose.add(decoded)
		}
	}
	return twofold, !s.dots()
}

// segment tells a dot segment from others.
type segment struct {
	length int
	others bool // than dots
}

func (s *segment) add(c byte) {
	s.length++
	s.others = s.others || c != '.'
}

func (s *segment) dots() bool { return !s.others && (s.length == 1 || s.length == 2) }

// unreserved characters mean the same encoded or not (RFC 3986, 2.3).
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// unhex returns the value of a hexadecimal digit, over 15 if it is none.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'f' {
		c -= 'a' - 'A'
	}
	return c
}
