package http2

import (
	"sync"
	"sync/atomic"

	h2 "golang.org/x/net/http2"
)

const (
	// frameSize is the largest payload of a frame that we take (the least that
	// RFC 9113, 4.2 allows) and send.
	frameSize = 16 << 10
	// pieceSize is how much of a response's body is taken at once: with the
	// frame's header it fills one TLS record.
	pieceSize = frameSize - frameHeader
	// chunkSize is the unit in which bodies of requests are held.
	chunkSize = 4 << 10
	// frameHeader is the size of a frame's header.
	frameHeader = 9
)

// pool is a pool of buffers that knows how many are in use.
type pool[T any] struct {
	free  sync.Pool
	inUse atomic.Int64
}

func newPool[T any](make func() *T) *pool[T] {
	return &pool[T]{free: sync.Pool{New: func() any { return make() }}}
}

func (p *pool[T]) get() *T {
	p.inUse.Add(1)
	return p.free.Get().(*T)
}

func (p *pool[T]) put(b *T) {
	p.inUse.Add(-1)
	p.free.Put(b)
}

var (
	readers = newPool(newReader)
	packets = newPool(newPacket)
	pieces  = newPool(func() *[pieceSize]byte { return new([pieceSize]byte) })
	chunks  = newPool(func() *chunk { return new(chunk) })
	blocks  = newPool(func() *[]byte { b := make([]byte, 0, 512); return &b })
)

// chunk is a part of a request's body that the handler has not read yet.
type chunk struct {
	next  *chunk
	r, w  int // what of data is unread
	bytes [chunkSize]byte
}

// packet is a run of frames to the client, for one write.
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
	packets.put(p)
}

// releaseBlock puts the memory of a header block back.
func releaseBlock(b *[]byte) {
	if cap(*b) > frameSize {
		*b = nil
	}
	*b = (*b)[:0]
	blocks.put(b)
}
