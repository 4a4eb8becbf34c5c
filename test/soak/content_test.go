package soak

import (
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"math/rand/v2"
)

// materialSize is a prime, so that no loss or repetition of whole buffers goes
// unnoticed.
const materialSize = 1<<20 + 7

// material is what all bodies are cut from.
var material = func() []byte {
	m := make([]byte, 2*materialSize)
	rand.NewChaCha8([32]byte{}).Read(m[:materialSize])
	copy(m[materialSize:], m)
	return m
}()

// content is a body that nobody can guess but who has the plan.
type content struct {
	start int64 // in the material
	size  int64
}

// at returns n bytes of it from an offset, or less: at least one if n is not 0.
// They are not to be changed.
func (c content) at(offset, n int64) []byte {
	from := (c.start + offset) % materialSize
	return material[from : from+min(n, materialSize)]
}

// digest is the field Content-Digest (RFC 9530) of it.
func (c content) digest() string {
	h := sha256.New()
	for done := int64(0); done < c.size; {
		piece := c.at(done, c.size-done)
		h.Write(piece)
		done += int64(len(piece))
	}
	return digestField(h)
}

func digestField(h hash.Hash) string {
	return "sha-256=:" + base64.StdEncoding.EncodeToString(h.Sum(nil)) + ":"
}
