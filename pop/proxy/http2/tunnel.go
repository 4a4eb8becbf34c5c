package http2

import (
	"errors"
	"net"
	"slices"
	"sync"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

var errUnasked = errors.New("the client asked for no upgrade")

// acceptWebSocket takes an extended CONNECT. The connection's mutex is held.
func (t *turn) acceptWebSocket() {
	t.key = t.x.Request.AskWebSocket()
	t.acceptTunnel()
}

// acceptTunnel leaves what follows on the stream to a tunnel. The connection's
// mutex is held.
func (t *turn) acceptTunnel() { t.newBody().ended = t.remoteClosed }

// Upgrade implements [exchange.Client], for CONNECT with and without a protocol.
func (t *turn) Upgrade(fields exchange.Fields) (exchange.Tunnel, error) {
	switch {
	case t.key != "":
		if fields.Get("Sec-WebSocket-Accept") != exchange.WebSocketAccept(t.key) {
			return nil, exchange.ErrAccept
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
