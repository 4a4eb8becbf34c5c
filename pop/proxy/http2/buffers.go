package http2

import (
	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/buffers"
)

const (
	// frameSize is the largest payload of a frame that we take (the least that
	// RFC 9113, 4.2 allows) and send.
	frameSize = 16 << 10
	// pieceSize is how much of a body is taken at once to be sent: with the
	// frame's header it fills one TLS record.
	pieceSize = frameSize - frameHeader
	// chunkSize is the unit in which bodies that came in are held.
	chunkSize = 4 << 10
	// packetSize and blockSize are what packets and header blocks commonly come
	// to, for the account of what is lent.
	packetSize = 4 << 10
	blockSize  = 512
	// frameHeader is the size of a frame's header.
	frameHeader = 9
)

var (
	readers = buffers.NewPool(frameSize, newReader)
	packets = buffers.NewPool(packetSize, newPacket)
	pieces  = buffers.NewPool(pieceSize, func() *[pieceSize]byte { return new([pieceSize]byte) })
	chunks  = buffers.NewPool(chunkSize, func() *chunk { return new(chunk) })
	blocks  = buffers.NewPool(blockSize, func() *[]byte { b := make([]byte, 0, blockSize); return &b })
)

// chunk is a part of a body that was not read yet.
type chunk struct {
	next  *chunk
	r, w  int // what of data is unread
	bytes [chunkSize]byte
}

// packet is a run of frames to the peer, for one write.
type packet struct {
	bytes  []byte
	framer *h2.Framer // appends to bytes
}

func newPacket() *packet {
	p := new(packet)
	p.framer = h2.NewFramer(p, nil)
	return p
}

// Write implements [io.Writer]. It does not fail.
func (p *packet) Write(b []byte) (int, error) {
	p.bytes = append(p.bytes, b...)
	return len(b), nil
}

// release puts a packet back, but for one that grew beyond its kind.
func (p *packet) release() {
	if cap(p.bytes) > 2*packetLimit {
		p.bytes = nil
	}
	p.bytes = p.bytes[:0]
	packets.Put(p)
}

// releaseBlock puts the memory of a header block back.
func releaseBlock(b *[]byte) {
	if cap(*b) > frameSize {
		*b = nil
	}
	*b = (*b)[:0]
	blocks.Put(b)
}
