package gslb

import (
	"crypto"
	"crypto/sha256"
	"io"
	"sync"
)

// maxSignatures bounds the signatures that are kept, each of some 300 octets
// with all that belongs to it.
const maxSignatures = 1 << 17

// signatures keeps signatures by what was signed, so that none is made twice
// while it is asked for now and then. Any number of goroutines may use it.
//
// There are two generations: when the young one has half of what may be kept, it
// becomes the old one, and what was asked for in neither time is gone. So names
// that are made up, each of which needs a signature, do not drive out those that
// are in use.
type signatures struct {
	m *metrics

	mu         sync.RWMutex
	young, old map[signedData][]byte
}

// signedData is what a signature is of: the public key and the digest of the
// data, which has all in it that matters, the time too.
type signedData struct {
	key    string
	digest [sha256.Size]byte
}

func newSignatures(m *metrics) *signatures {
	return &signatures{m: m, young: make(map[signedData][]byte)}
}

func (c *signatures) get(id signedData) []byte {
	c.mu.RLock()
	sig := c.young[id]
	aging := sig == nil
	if aging {
		sig = c.old[id]
	}
	c.mu.RUnlock()
	if aging && sig != nil {
		c.put(id, sig)
	}
	return sig
}

func (c *signatures) put(id signedData, sig []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.young) >= maxSignatures/2 {
		c.old, c.young = c.young, make(map[signedData][]byte)
	}
	c.young[id] = sig
}

// remembered signs with a key what was not signed before.
type remembered struct {
	cache *signatures
	// public is the key as the cache knows it.
	public string
	crypto.Signer
}

// Sign implements crypto.Signer. Signatures are the same for the same data,
// those of ECDSA by RFC 6979.
func (r *remembered) Sign(_ io.Reader, data []byte, opts crypto.SignerOpts) ([]byte, error) {
	id := signedData{r.public, sha256.Sum256(data)}
	if sig := r.cache.get(id); sig != nil {
		r.cache.m.signatureHits.Inc()
		return sig, nil
	}
	sig, err := r.Signer.Sign(nil, data, opts)
	if err != nil {
		r.cache.m.signatureErrors.Inc()
		return nil, err
	}
	r.cache.m.signatures.Inc()
	r.cache.put(id, sig)
	return sig, nil
}
