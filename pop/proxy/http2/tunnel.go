package http2

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"slices"
	"sync"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

// keyGUID goes into the answer to a Sec-WebSocket-Key (RFC 6455, 1.3).
const keyGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

var errAccept = errors.New("the origin did not accept the WebSocket's key")

// acceptWebSocket makes an extended CONNECT what it is on HTTP/1.1: a GET that
// asks for an upgrade. The key that HTTP/2 does without is ours (RFC 8441, 5).
// The connection's mutex is held.
func (s *stream) acceptWebSocket() {
	var nonce [16]byte
	rand.Read(nonce[:])
	s.key = base64.StdEncoding.EncodeToString(nonce[:])
	r := &s.x.Request
	r.Method, r.Length = "GET", 0
	r.Fields.Del("Sec-WebSocket-Key")
	r.Fields.Add("sec-websocket-key", s.key)
	s.body = s.newBody()
	if s.remoteClosed {
		s.body.ended = true
	}
}

// Upgrade implements [exchange.Client], for an extended CONNECT.
func (s *stream) Upgrade(fields exchange.Fields) (exchange.Tunnel, error) {
	if s.key == "" {
		return nil, errors.New("the client asked for no upgrade")
	}
	digest := sha1.Sum([]byte(s.key + keyGUID))
	if fields.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(digest[:]) {
		return nil, errAccept
	}
	fields = slices.Clone(fields)
	fields.Del("Sec-WebSocket-Accept")
	block := blocks.get()
	defer releaseBlock(block)
	*block = appendFields(appendStatus(*block, 200), fields)
	if err := s.send(*block, nil, false, nil); err != nil {
		return nil, err
	}
	return &tunnel{stream: s}, nil
}

// tunnel is a stream that left HTTP (RFC 8441, 5). It has no deadlines of its
// own.
type tunnel struct {
	stream *stream
	write  sync.Mutex // held by Write
}

// Read implements [io.Reader].
func (t *tunnel) Read(p []byte) (int, error) { return t.stream.body.Read(p) }

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
	if c.streams[s.id] == s {
		c.resetLocked(s.id, h2.ErrCodeCancel, net.ErrClosed)
		c.flushLocked()
	}
	c.mu.Unlock()
	return s.body.Close()
}

var _ io.ReadWriteCloser = (*tunnel)(nil)
