package http3

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// keyGUID goes into the answer to a Sec-WebSocket-Key (RFC 6455, 1.3).
const keyGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

var (
	errAccept    = fmt.Errorf("%w: the answer to the WebSocket's key is wrong", exchange.ErrHandshake)
	errNoUpgrade = errors.New("the client asked for no upgrade")
)

// acceptWebSocket makes an extended CONNECT what it is on HTTP/1.1: a GET that
// asks for an upgrade. The key that HTTP/3 does without is ours (RFC 9220, 3,
// and RFC 8441, 5).
func (s *stream) acceptWebSocket() {
	var nonce [16]byte
	rand.Read(nonce[:])
	s.key = base64.StdEncoding.EncodeToString(nonce[:])
	r := &s.x.Request
	r.Method, r.Length = "GET", 0
	r.Fields.Del("Sec-WebSocket-Key")
	r.Fields.Add("sec-websocket-key", s.key)
	s.body = newBody(s)
}

// Upgrade implements [exchange.Client], for CONNECT and extended CONNECT.
func (s *stream) Upgrade(fields exchange.Fields) (exchange.Tunnel, error) {
	switch {
	case s.key != "":
		digest := sha1.Sum([]byte(s.key + keyGUID))
		if fields.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(digest[:]) {
			return nil, errAccept
		}
		fields = slices.Clone(fields)
		fields.Del("Sec-WebSocket-Accept")
	case s.x.Request.Method != "CONNECT":
		return nil, errNoUpgrade
	}
	head := newBlock()
	defer head.release()
	head.status(200)
	head.fields(fields)
	if err := s.begin(head.frame()); err != nil {
		return nil, err
	}
	s.str.SetWriteDeadline(time.Time{})
	return &tunnel{stream: s}, nil
}

// tunnel is a stream that left HTTP: DATA frames, in both directions. It has no
// deadlines of its own.
type tunnel struct {
	stream *stream
	write  sync.Mutex // held by Write and CloseWrite
}

// Read implements [io.Reader].
func (t *tunnel) Read(p []byte) (int, error) { return t.stream.body.Read(p) }

// Write implements [io.Writer].
func (t *tunnel) Write(p []byte) (int, error) {
	t.write.Lock()
	defer t.write.Unlock()
	b := buffers.Take(min(len(p)+frameHeader, buffers.PieceSize))
	defer buffers.Give(b)
	for done := 0; ; {
		if t.stream.closed.Load() {
			return done, net.ErrClosed
		}
		n := copy(b.Bytes[frameHeader:], p[done:])
		if n == 0 {
			return done, nil
		}
		putFrameHeader(b.Bytes, frameData, n)
		if _, err := t.stream.str.Write(b.Bytes[:frameHeader+n]); err != nil {
			return done, err
		}
		done += n
	}
}

// CloseWrite ends our side of the stream.
func (t *tunnel) CloseWrite() error {
	t.write.Lock()
	defer t.write.Unlock()
	t.stream.close()
	return nil
}

// Close resets what has not ended.
func (t *tunnel) Close() error {
	s := t.stream
	if !s.closed.Swap(true) {
		s.str.CancelWrite(codeRequestCancelled)
	}
	s.str.CancelRead(codeRequestCancelled)
	return s.body.Close()
}

var _ exchange.Tunnel = (*tunnel)(nil)
