package http1

import (
	"bytes"
	"io"

	"anyedge/pop/proxy/buffers"
)

// errSection and errLine mean that a section or a line is longer than it may be.
const (
	errSection = malformed("the section is too long")
	errLine    = malformed("the line is too long")
	errNewline = malformed("a line does not end in CR LF")
	errControl = malformed("a line holds a control character")
)

// reader reads a connection through pooled memory. It holds none until the
// first byte comes.
//
// Sections (heads, trailers) are kept where they were read, for strings point
// into them, until recycle is called.
type reader struct {
	src    io.Reader
	buf    *buffers.Buffer   // nil if nothing is held
	r, w   int               // buf.Bytes[r:w] is not consumed yet
	pinned int               // buf.Bytes[:pinned] is in use by strings
	held   []*buffers.Buffer // of earlier sections of the message
}

// buffered returns how many bytes are at hand.
func (r *reader) buffered() int { return r.w - r.r }

// fill reads once from the connection, for at least one byte.
func (r *reader) fill() error {
	r.makeRoom()
	n, err := r.src.Read(r.buf.Bytes[r.w:])
	r.w += n
	if n > 0 {
		return nil // an error comes again
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// makeRoom makes sure that bytes can be read into the buffer.
func (r *reader) makeRoom() {
	switch {
	case r.buf == nil:
		r.buf = buffers.Take(buffers.HeadSize)
		r.r, r.w, r.pinned = 0, 0, 0
	case r.r == r.w && r.r > r.pinned:
		r.r, r.w = r.pinned, r.pinned
	case r.w == len(r.buf.Bytes) && r.r > r.pinned:
		r.w = r.pinned + copy(r.buf.Bytes[r.pinned:], r.buf.Bytes[r.r:r.w])
		r.r = r.pinned
	}
	if r.w < len(r.buf.Bytes) {
		return
	}
	// What is not consumed moves to a larger buffer.
	next := buffers.Take(max(buffers.PieceSize, 2*r.buffered()))
	n := copy(next.Bytes, r.buf.Bytes[r.r:r.w])
	if r.pinned > 0 {
		r.held = append(r.held, r.buf)
	} else {
		buffers.Give(r.buf)
	}
	r.buf, r.r, r.w, r.pinned = next, 0, n, 0
}

// section reads lines up to an empty one and returns them, the empty one
// included, in memory that stays as it is until recycle. It consumes at most
// limit bytes. Each line must end in CR LF. A control character is an error as
// soon as it comes, if the section's end has not come with it.
func (r *reader) section(limit int) ([]byte, error) {
	line, next := 0, 0 // offsets from r.r: of the present line, and of what was not looked at
	for {
		unread := r.unread()
		fresh := max(next-1, 0) // the last one may have been a carriage return
		for {
			i := bytes.IndexByte(unread[next:], '\n')
			if i < 0 {
				next = len(unread)
				break
			}
			end := next + i
			if end == line || unread[end-1] != '\r' {
				return nil, errNewline
			}
			next = end + 1
			if next > limit {
				return nil, errSection
			}
			if end-1 == line {
				r.r += next
				r.pinned = r.r
				return unread[:next:next], nil
			}
			line = next
		}
		if next >= limit {
			return nil, errSection
		}
		// Who sent what can never be a section is not waited for.
		if !plausible(unread[fresh:]) {
			return nil, errControl
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// plausible reports whether b may be a part of a section: no byte is a control
// character but the tab, and line ends, of which the last may be incomplete.
func plausible(b []byte) bool {
	for i, c := range b {
		switch {
		case classes[c]&isText != 0:
		case c == '\r' && (i+1 == len(b) || b[i+1] == '\n'):
		case c == '\n': // section has looked at what precedes it
		default:
			return false
		}
	}
	return true
}

// sectionAtHand is section for a caller that does not want to wait: it returns
// nil if the section was not read to its end yet.
func (r *reader) sectionAtHand(limit int) ([]byte, error) {
	if !bytes.Contains(r.unread(), []byte("\r\n\r\n")) {
		return nil, nil
	}
	return r.section(limit)
}

// line consumes one line of at most limit bytes and returns it without its
// CR LF. It is valid until the next call.
func (r *reader) line(limit int) ([]byte, error) {
	for {
		unread := r.unread()
		if i := bytes.IndexByte(unread, '\n'); i >= 0 {
			if i == 0 || unread[i-1] != '\r' {
				return nil, errNewline
			}
			if i+1 > limit {
				return nil, errLine
			}
			r.r += i + 1
			return unread[:i-1], nil
		}
		if len(unread) >= limit {
			return nil, errLine
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// unread returns what is at hand.
func (r *reader) unread() []byte {
	if r.buf == nil {
		return nil
	}
	return r.buf.Bytes[r.r:r.w]
}

// take copies bytes that are at hand.
func (r *reader) take(p []byte) int {
	n := copy(p, r.unread())
	r.r += n
	return n
}

// recycle ends the use of sections. Unread bytes stay.
func (r *reader) recycle() {
	for i, b := range r.held {
		buffers.Give(b)
		r.held[i] = nil
	}
	r.held = r.held[:0]
	r.pinned = 0
	if r.buf == nil {
		return
	}
	if r.r == r.w {
		r.r, r.w = 0, 0
		if len(r.buf.Bytes) > buffers.HeadSize {
			r.release()
		}
	}
}

// release gives all memory back, and what is unread with it.
func (r *reader) release() {
	for i, b := range r.held {
		buffers.Give(b)
		r.held[i] = nil
	}
	r.held = r.held[:0]
	buffers.Give(r.buf)
	r.buf, r.r, r.w, r.pinned = nil, 0, 0, 0
}
