// Package buffers lends memory for bytes on their way through the worker, and
// knows how much of it is lent: the worker compares that with its ceiling, and
// tests find leaks by it.
//
// # Concurrency
//
// All functions may be called by several goroutines at once. What was lent is
// used by one at a time.
package buffers

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// Sizes of pooled buffers, in bytes.
const (
	HeadSize  = 4 << 10  // most heads fit
	PieceSize = 32 << 10 // a piece of a body
)

// Buffer is memory from [Take]. Its content is unknown at first, and its length
// at least what was asked for.
type Buffer struct{ Bytes []byte }

var (
	heads  = NewPool(HeadSize, func() *Buffer { return &Buffer{Bytes: make([]byte, HeadSize)} })
	pieces = NewPool(PieceSize, func() *Buffer { return &Buffer{Bytes: make([]byte, PieceSize)} })
)

// Take lends a buffer of at least size bytes.
func Take(size int) *Buffer {
	switch {
	case size <= HeadSize:
		return heads.Get()
	case size <= PieceSize:
		return pieces.Get()
	}
	// Heads as large as this are rare, so they are not worth keeping.
	lent(size)
	return &Buffer{Bytes: make([]byte, size)}
}

// Give takes back what Take has lent. nil is ignored.
func Give(b *Buffer) {
	switch {
	case b == nil:
	case len(b.Bytes) == HeadSize:
		heads.Put(b)
	case len(b.Bytes) == PieceSize:
		pieces.Put(b)
	default:
		lent(-len(b.Bytes))
	}
}

// Pool lends values of one type.
type Pool[T any] struct {
	size int
	free sync.Pool
}

// NewPool returns a pool of values that hold about size bytes each.
func NewPool[T any](size int, make func() *T) *Pool[T] {
	return &Pool[T]{size: size, free: sync.Pool{New: func() any { return make() }}}
}

// Get lends a value, as it was put back by whoever had it before.
func (p *Pool[T]) Get() *T {
	lent(p.size)
	return p.free.Get().(*T)
}

// Put takes a value back.
func (p *Pool[T]) Put(v *T) {
	lent(-p.size)
	p.free.Put(v)
}

// shards are the parts of the count of lent bytes. One counter that all
// processors write would cost more than the pools.
var shards [16]struct {
	bytes atomic.Int64
	_     [56]byte // the rest of a cache line
}

// lent counts n bytes more.
func lent(n int) {
	// Goroutines have stacks of their own, so this spreads them over the shards
	// and keeps each to one.
	var here byte
	shard := uintptr(unsafe.Pointer(&here)) >> 13 % uintptr(len(shards))
	shards[shard].bytes.Add(int64(n))
}

// Lent returns how many bytes are lent at present.
func Lent() int64 {
	n := int64(0)
	for i := range shards {
		n += shards[i].bytes.Load()
	}
	return n
}
