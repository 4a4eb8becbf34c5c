package http3

import (
	"strconv"

	"github.com/quic-go/qpack"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// block is a HEADERS frame to the client.
type block struct {
	bytes   []byte // the frame, its header not filled in yet
	encoder *qpack.Encoder
	names   exchange.Arena
}

var blocks = buffers.NewPool(buffers.HeadSize, func() *block {
	b := &block{bytes: make([]byte, 0, 512)}
	b.encoder = qpack.NewEncoder(b)
	return b
})

// newBlock lends an empty block.
func newBlock() *block {
	b := blocks.Get()
	b.bytes = append(b.bytes[:0], make([]byte, frameHeader)...)
	b.encoder.Close() // begin anew
	b.names.Reset()
	return b
}

// release takes a block back, but not the memory of one that grew beyond its
// kind.
func (b *block) release() {
	if cap(b.bytes) > 4*buffers.HeadSize {
		b.bytes = nil
	}
	blocks.Put(b)
}

// Write implements [io.Writer] for the encoder. It does not fail.
func (b *block) Write(p []byte) (int, error) {
	b.bytes = append(b.bytes, p...)
	return len(p), nil
}

// empty reports whether the block has no field.
func (b *block) empty() bool { return len(b.bytes) == frameHeader }

// frame returns the block as a frame.
func (b *block) frame() []byte {
	putFrameHeader(b.bytes, frameHeaders, len(b.bytes)-frameHeader)
	return b.bytes
}

func (b *block) add(name, value string) {
	b.encoder.WriteField(qpack.HeaderField{Name: name, Value: value})
}

// status adds :status.
func (b *block) status(status int) {
	b.add(":status", b.names.Build(func(p []byte) []byte { return strconv.AppendInt(p, int64(status), 10) }))
}

// length adds Content-Length.
func (b *block) length(n int64) {
	b.add("content-length", b.names.Build(func(p []byte) []byte { return strconv.AppendInt(p, n, 10) }))
}

// fields adds the lines that may go to an HTTP/3 client: none that belongs to a
// connection (RFC 9114, 4.2) or that we write ourselves.
func (b *block) fields(fields exchange.Fields) {
	for i := range fields {
		b.field(fields[i].Name, fields[i].Value)
	}
}

// trailers adds the lines that may be trailers.
func (b *block) trailers(fields exchange.Fields) {
	for i := range fields {
		if exchange.TrailerAllowed(fields[i].Name) {
			b.field(fields[i].Name, fields[i].Value)
		}
	}
}

func (b *block) field(name, value string) {
	name = b.lower(name)
	if name != "" && name[0] != ':' && !connectionField(name) {
		b.add(name, value)
	}
}

// lower returns a name in lower case (RFC 9114, 4.2).
func (b *block) lower(name string) string {
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' {
			return b.names.Build(func(p []byte) []byte {
				for i := range len(name) {
					c := name[i]
					if 'A' <= c && c <= 'Z' {
						c += 'a' - 'A'
					}
					p = append(p, c)
				}
				return p
			})
		}
	}
	return name
}

// connectionField reports whether a name in lower case stands for something
// that HTTP/3 says by other means.
func connectionField(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "content-length", "host":
		return true
	}
	return false
}
