package http2

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

// keyGUID goes into the answer to a Sec-WebSocket-Key (RFC 6455, 1.3).
const keyGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

var (
	errAccept  = fmt.Errorf("%w: the answer to the WebSocket's key is wrong", exchange.ErrHandshake)
	errUnasked = errors.New("the client asked for no upgrade")
)

// acceptWebSocket makes an extended CONNECT what it is on HTTP/1.1: a GET that
// asks for an upgrade. The key that HTTP/2 does without is ours (RFC 8441, 5).
// The connection's mutex is held.
func (t *turn) acceptWebSocket() {
	var nonce [16]byte
	rand.Read(nonce[:])
	t.key = base64.StdEncoding.EncodeToString(nonce[:])
	r := &t.x.Request
	r.Method, r.Length = "GET", 0
	r.Fields.Del("Sec-WebSocket-Key")
	r.Fields.Add("sec-websocket-key", t.key)
	t.acceptTunnel()
}

// acceptTunnel leaves what follows on the stream to a tunnel. The connection's
// mutex is held.
func (t *turn) acceptTunnel() { t.newBody().ended = t.remoteClosed }

// acceptKey returns what proves that a Sec-WebSocket-Key was seen (RFC 6455,
// 4.2.2).
func acceptKey(key string) string {
	digest := sha1.Sum([]byte(key + keyGUID))
	return base64.StdEncoding.EncodeToString(digest[:])
}

// Upgrade implements [exchange.Client], for CONNECT with and without a protocol.
func (t *turn) Upgrade(fields exchange.Fields) (exchange.Tunnel, error) {
	switch {
	case t.key != "":
		if fields.Get("Sec-WebSocket-Accept") != acceptKey(t.key) {
			return nil, errAccept
		}
		fields = slices.Clone(fields)
		fields.Del("Sec-WebSocket-Accept")
	case !t.connect:
		return nil, errUnasked
	}
	block := blocks.Get()
	defer releaseBlock(block)
	*block = appendFields(appendStatus(*block, 200), fields)
	if err := t.send(*block, nil, false, nil, 0); err != nil {
		return nil, err
	}
	return &tunnel{stream: &t.stream}, nil
}

// tunnel is a stream that left HTTP (RFC 9113, 8.5, and RFC 8441, 5), to a
// client or an origin. It has no deadlines of its own.
type tunnel struct {
	stream *stream
	write  sync.Mutex // held by Write
}

// Read implements [io.Reader].
func (t *tunnel) Read(p []byte) (int, error) {
	b, c := t.stream.body, t.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		n, err := b.readLocked(p)
		c.flushLocked()
		if err != errEmpty {
			return n, err
		}
		c.mu.Unlock()
		<-b.wake
		c.mu.Lock()
	}
}

// Write implements [io.Writer].
func (t *tunnel) Write(p []byte) (int, error) {
	t.write.Lock()
	defer t.write.Unlock()
	s, c := t.stream, t.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.localClosed {
		return 0, net.ErrClosed
	}
	if len(p) == 0 {
		return 0, s.err
	}
	if err := s.sendDataLocked(p, false, 0); err != nil {
		return 0, err
	}
	c.flushLocked()
	return len(p), nil
}

// CloseWrite ends our side of the stream.
func (t *tunnel) CloseWrite() error {
	s, c := t.stream, t.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.localClosed || s.err != nil {
		return s.err
	}
	c.appendDataLocked(s.id, nil, true)
	c.localClosedLocked(s)
	c.flushLocked()
	return nil
}

// Close resets the stream unless both sides have ended theirs.
func (t *tunnel) Close() error {
	s, c := t.stream, t.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] == s {
		c.resetLocked(s.id, h2.ErrCodeCancel, net.ErrClosed)
	}
	s.body.closeLocked()
	c.flushLocked()
	return nil
}
