package demo

import (
	"encoding/binary"
	"io"
)

// Content returns a reader of the first n bytes of an endless fixed sequence,
// what /bytes sends. Its 8-byte words all differ, so that a reader that compares
// notices bytes that are lost, doubled or moved.
func Content(n int64) io.Reader { return &content{left: n} }

type content struct {
	at, left int64
}

func (c *content) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.left)]
	for rest := p; len(rest) > 0; {
		var word [8]byte
		binary.BigEndian.PutUint64(word[:], mix(uint64(c.at/8)))
		n := copy(rest, word[c.at%8:])
		rest = rest[n:]
		c.at += int64(n)
	}
	c.left -= int64(len(p))
	return len(p), nil
}

// mix maps numbers one to one onto numbers that look random: odd multiplication
// and xor-shift can both be undone.
func mix(x uint64) uint64 {
	x = (x + 1) * 0x9e3779b97f4a7c15
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>29
}
