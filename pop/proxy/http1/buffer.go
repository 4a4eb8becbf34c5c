package http1

import (
	"sync"
	"sync/atomic"
)

// Sizes of pooled buffers, in bytes.
const (
	headSize  = 4 << 10  // most heads fit
	pieceSize = 32 << 10 // a piece of a body
)

// buffer is memory for bytes of a connection, from takeBuffer.
type buffer struct{ b []byte }

var (
	heads  = sync.Pool{New: func() any { return &buffer{make([]byte, headSize)} }}
	pieces = sync.Pool{New: func() any { return &buffer{make([]byte, pieceSize)} }}
)

// accounting counts the buffers that are taken and not given back. Tests set
// it before anything runs; otherwise it is nil, for a counter that all
// processors share is dear.
var accounting *atomic.Int64

// takeBuffer returns a buffer of at least size bytes, of unknown content.
func takeBuffer(size int) *buffer {
	if accounting != nil {
		accounting.Add(1)
	}
	switch {
	case size <= headSize:
		return heads.Get().(*buffer)
	case size <= pieceSize:
		return pieces.Get().(*buffer)
	}
	// Heads as large as this are rare, so they are not worth keeping.
	return &buffer{make([]byte, size)}
}

// giveBuffer takes back what takeBuffer returned. nil is ignored.
func giveBuffer(b *buffer) {
	if b == nil {
		return
	}
	if accounting != nil {
		accounting.Add(-1)
	}
	switch len(b.b) {
	case headSize:
		heads.Put(b)
	case pieceSize:
		pieces.Put(b)
	}
}
