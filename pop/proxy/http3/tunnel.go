package http3

import (
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

var errNoUpgrade = errors.New("the client asked for no upgrade")

// acceptWebSocket takes an extended CONNECT.
func (s *stream) acceptWebSocket() {
	s.key = s.x.Request.AskWebSocket()
	s.body = newBody(s)
}

// Upgrade implements [exchange.Client], for CONNECT and extended CONNECT.
func (s *stream) Upgrade(fields exchange.Fields) (exchange.Tunnel, error) {
	switch {
	case s.key != "":
		if fields.Get("Sec-WebSocket-Accept") != exchange.WebSocketAccept(s.key) {
			return nil, exchange.ErrAccept
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
