package http1

import (
	"io"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

const (
	// maxChunkLine bounds the line of a chunk's size with its extensions.
	maxChunkLine = 256
	// maxExtensions bounds the extensions of all chunks of a body. Nobody
	// uses them, but to make a recipient work.
	maxExtensions = 16 << 10
	// maxSizeDigits bounds the digits of a chunk's size, leading zeros included.
	maxSizeDigits = 15
	// directRead is the least rest of a chunk that is read past the buffer.
	directRead = 2 * buffers.HeadSize
)

// The faults of the chunked coding (RFC 9112, 7.1).
const (
	errChunkSize  = malformed("a chunk's size is malformed")
	errChunkEnd   = malformed("a chunk does not end where its size says")
	errExtensions = malformed("too many chunk extensions")
	errExtension  = malformed("a chunk extension holds a control character")
)

// malformed is a fault of a body's framing.
type malformed string

// Error implements [error].
func (m malformed) Error() string { return string(m) }

// Is makes it an [exchange.ErrMalformed].
func (m malformed) Is(target error) bool { return target == exchange.ErrMalformed }

// Kinds of bodies by their framing (RFC 9112, 6.3).
type kind uint8

const (
	none       kind = iota
	fixed           // as many bytes as were said
	chunked         // the chunked coding
	untilClose      // all that comes
)

// decoder takes a message's body out of its framing.
type decoder struct {
	in   *reader
	kind kind
	// answer is set when nothing may follow the message: then more is read
	// than the message has left, to see what should not be there.
	answer   bool
	left     int64 // of the fixed body or the present chunk
	begun    bool  // a chunk was begun
	extended int   // bytes of chunk extensions so far
	trailers *exchange.Fields
	limit    int   // of the trailer section, in bytes
	most     int   // of its fields
	err      error // from here on; io.EOF after the whole body
	over     bool  // with answer: bytes came behind the message
	unseen   bool  // with answer: whether bytes came behind cannot be told
}

// begin makes d ready for a message whose head was just read from in, and whose
// trailer section may have limit bytes and most fields.
func (d *decoder) begin(in *reader, k kind, length int64, trailers *exchange.Fields, limit, most int) {
	*d = decoder{in: in, kind: k, left: max(length, 0), trailers: trailers, limit: limit, most: most}
	if k == none || k == fixed && length == 0 {
		d.err = io.EOF
	}
}

// ready returns how many bytes the next Read gives for certain without
// reading the connection.
func (d *decoder) ready() int64 {
	n := int64(d.in.buffered())
	switch d.kind {
	case fixed:
		return min(n, d.left)
	case untilClose:
		return n
	case chunked:
		// A chunk with its line, or just the end; near enough, as whoever sent
		// these is about to send the rest.
		return min(n, 1)
	}
	return 0
}

// Read returns io.EOF together with the last bytes if the end is at hand, so
// that no further call is needed.
func (d *decoder) Read(p []byte) (n int, err error) {
	if d.err != nil {
		return 0, d.err
	}
	switch d.kind {
	case fixed:
		n, d.err = d.readFixed(p)
	case chunked:
		n, d.err = d.readChunked(p)
	default:
		n, d.err = d.readRaw(p, int64(len(p)))
		if n > 0 && d.err == io.EOF {
			d.err = nil // comes again
		}
		return n, d.err
	}
	if d.err == io.EOF && d.left > 0 {
		d.err = io.ErrUnexpectedEOF
	}
	return n, d.err
}

func (d *decoder) readFixed(p []byte) (int, error) {
	n, err := d.readRaw(p, d.left)
	if int64(n) > d.left {
		n, d.over = int(d.left), true
	}
	d.unseen = d.answer && n == len(p)
	d.left -= int64(n)
	if d.left == 0 {
		return n, io.EOF
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

// readRaw reads up to most bytes, or more if d.answer is set.
func (d *decoder) readRaw(p []byte, most int64) (int, error) {
	if d.in.buffered() > 0 {
		if int64(len(p)) > most && !d.answer {
			p = p[:most]
		}
		return d.in.take(p), nil
	}
	if int64(len(p)) > most && !d.answer {
		p = p[:most]
	}
	return d.in.src.Read(p)
}

// readChunked gives what is at hand of the present chunk and, if they are at
// hand, of those behind it.
func (d *decoder) readChunked(p []byte) (n int, err error) {
	for len(p) > n {
		if d.left == 0 {
			if n > 0 && !d.lineAtHand() {
				return n, nil
			}
			if err := d.nextChunk(); err != nil {
				return n, err
			}
		}
		if d.in.buffered() == 0 {
			if n > 0 {
				return n, nil
			}
			if d.left >= directRead {
				m, err := d.in.src.Read(p[:min(int64(len(p)), d.left)])
				d.left -= int64(m)
				if m > 0 {
					err = nil
				}
				return m, unexpected(err)
			}
			if err := d.in.fill(); err != nil {
				return 0, unexpected(err)
			}
		}
		m := d.in.take(p[n:][:min(int64(len(p)-n), d.left)])
		d.left -= int64(m)
		n += m
	}
	return n, nil
}

// lineAtHand reports whether the next chunk's line, and the end of the body if
// it is the last, were read already.
func (d *decoder) lineAtHand() bool {
	unread := d.in.unread()
	if len(unread) >= 2 && d.begun {
		unread = unread[2:] // the end of the present chunk
	}
	lines, last := 0, false
	for i, c := range unread {
		if c != '\n' {
			continue
		}
		if lines++; lines == 1 {
			last = unread[0] == '0'
		}
		if !last || lines == 2 && i >= 3 && unread[i-2] == '\n' {
			return true
		}
		if lines == 2 {
			return false // trailers; they may wait
		}
	}
	return false
}

// nextChunk reads up to the next chunk's data. It returns io.EOF after the
// last chunk and the trailers.
func (d *decoder) nextChunk() error {
	if d.begun {
		for d.in.buffered() < 2 {
			if err := d.in.fill(); err != nil {
				return unexpected(err)
			}
		}
		if unread := d.in.unread(); unread[0] != '\r' || unread[1] != '\n' {
			return errChunkEnd
		}
		d.in.r += 2
	}
	line, err := d.in.line(maxChunkLine)
	if err != nil {
		return unexpected(err)
	}
	if d.left, err = d.chunkSize(line); err != nil {
		return err
	}
	d.begun = true
	if d.left > 0 {
		return nil
	}
	section, err := d.in.section(d.limit)
	if err != nil {
		return unexpected(err)
	}
	if err := parseTrailers(section, d.most, d.trailers); err != nil {
		return malformed(err.Error())
	}
	return io.EOF
}

// chunkSize reads a chunk's line.
func (d *decoder) chunkSize(line []byte) (int64, error) {
	n, i := int64(0), 0
	for ; i < len(line); i++ {
		digit := unhex(line[i])
		if digit < 0 {
			break
		}
		if i == maxSizeDigits {
			return 0, errChunkSize
		}
		n = n<<4 | digit
	}
	extension := line[i:]
	if i == 0 || len(extension) > 0 && extension[0] != ';' {
		return 0, errChunkSize
	}
	if d.extended += len(extension); d.extended > maxExtensions {
		return 0, errExtensions
	}
	if !all(extension, isText) {
		return 0, errExtension
	}
	return n, nil
}

// unhex returns the value of a hexadecimal digit, -1 if it is none.
func unhex(c byte) int64 {
	switch {
	case '0' <= c && c <= '9':
		return int64(c - '0')
	case 'a' <= c && c <= 'f':
		return int64(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int64(c-'A') + 10
	}
	return -1
}

// unexpected makes the end of the connection an error.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
