package http3

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// stream is one request and its response. It belongs to the goroutine that
// serves it, but for what a body uses.
type stream struct {
	conn    *conn
	str     *quic.Stream
	in      input // read by the body once there is one
	x       exchange.Exchange
	ctx     context.Context
	cancel  context.CancelFunc
	unwatch func() bool   // lets the end of the stream be without consequence for ctx
	body    *body         // what the client sends; nil if nothing
	key     string        // Sec-WebSocket-Key of a WebSocket
	fault   atomic.Uint64 // the error code that the client deserves; 0 if none
	closed  atomic.Bool   // our side has ended

	// head is held while anything but the response's body is written.
	head     sync.Mutex
	headSent bool
}

func newStream(c *conn, str *quic.Stream) *stream {
	s := &stream{conn: c, str: str, in: input{r: str}}
	s.x.Conn, s.x.Client = c.info, s
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	s.unwatch = context.AfterFunc(str.Context(), s.cancel)
	return s
}

// serve serves the request and ends the stream.
func (s *stream) serve() {
	if err := s.receive(); err != nil {
		s.fail(err)
	} else {
		s.conn.config.Handler(s.ctx, &s.x)
	}
	s.finish()
}

// streamError ends the stream.
type streamError uint64

func (e streamError) Error() string { return "the request is malformed or incomplete" }

// fail notes why there is no exchange.
func (s *stream) fail(err error) {
	var fatal *connError
	code := streamError(codeRequestIncomplete)
	if errors.As(err, &fatal) {
		s.conn.end(fatal)
	} else {
		errors.As(err, &code)
	}
	s.fault.Store(uint64(code))
}

// receive brings the request to where its handler can begin.
func (s *stream) receive() error {
	config := s.conn.config
	s.str.SetReadDeadline(time.Now().Add(config.HeaderTimeout))
	h := head{
		limits: limits{config.MaxHeaderBytes, config.MaxHeaderFields, config.MaxURIBytes},
		fields: make(exchange.Fields, 0, 16),
	}
	kind, length, err := s.in.next()
	switch {
	case err != nil:
		return err
	case kind != frameHeaders:
		return &connError{codeFrameUnexpected, "DATA before HEADERS"} // RFC 9114, 4.1
	}
	if err := s.readBlock(&h, length); err != nil {
		return err
	}
	r := &s.x.Request
	refused := h.request(r)
	if refused == malformed {
		return streamError(codeMessage)
	}
	s.x.Refusal = refused
	if refused != none {
		r.Length = 0
	} else if err := s.expectBody(&h); err != nil {
		return err
	}
	s.x.Start = time.Now()
	return s.settleEarly()
}

// readBlock reads and decodes a header block.
func (s *stream) readBlock(h *head, length uint64) error {
	if length > uint64(h.limits.bytes) {
		h.size = h.limits.bytes + 1 // it is left unread
		return nil
	}
	b := buffers.Take(int(length))
	defer buffers.Give(b)
	if err := s.in.full(b.Bytes[:length]); err != nil {
		return within(err)
	}
	return h.decode(b.Bytes[:length])
}

// expectBody finds out whether the request has a body, and makes it one.
func (s *stream) expectBody(h *head) error {
	r := &s.x.Request
	switch {
	case r.Upgrade != "":
		s.acceptWebSocket()
		return nil
	case r.Method == "CONNECT":
		r.Length = 0
		s.body = newBody(s)
		return nil
	}
	b := newBody(s)
	b.left, b.declared = r.Length, r.Length >= 0
	b.expects = h.expect != ""
	if !b.expects && (r.Length == 0 || r.Length < 0 && bodyless(r.Method)) {
		// The end of the stream is about to come, if it did not come with the
		// head. The origin is not to be told of a body that there is not.
		switch err := b.frame(); {
		case err == io.EOF:
			r.Length = 0
			return nil
		case err != nil && b.fault != 0:
			return streamError(b.fault)
		case err != nil:
			return err
		}
	}
	if s.in.end && !b.pending {
		if r.Length > 0 {
			return streamError(codeMessage) // RFC 9114, 4.1.2
		}
		r.Length = 0
		return nil
	}
	b.patience = s.conn.config.BodyIdle
	b.trailers = h.announced()
	r.Body, r.Trailers = b, &b.trailers
	s.body = b
	return nil
}

// bodyless reports whether requests with this method have no body as a rule.
func bodyless(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "DELETE":
		return true
	}
	return false
}

// settleEarly sees to it that a request in early data does no harm when it is
// replayed (RFC 8470, 3). What is decrypted before the handshake is complete
// came in early data: a client has no other key to send requests with.
func (s *stream) settleEarly() error {
	r, c := &s.x.Request, s.conn
	if c.complete() {
		return nil
	}
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		if s.body == nil && s.x.Refusal == none {
			r.Early = true
			c.config.Metrics.early.WithLabelValues(earlyServed).Inc()
			return nil
		}
	}
	c.config.Metrics.early.WithLabelValues(earlyDelayed).Inc()
	select {
	case <-c.qc.HandshakeComplete():
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// close ends our side of the stream. All that was written arrives, unless the
// connection ends first.
func (s *stream) close() {
	if !s.closed.Swap(true) {
		s.unwatch() // or ctx would end while the handler finishes its work
		s.str.Close()
	}
}

// finish ends a stream whose handler has returned.
func (s *stream) finish() {
	var peer *quic.StreamError
	wasReset := errors.As(context.Cause(s.str.Context()), &peer) && peer.Remote
	s.unwatch()
	s.cancel()
	if s.body != nil {
		s.body.Close()
	}
	fault := quic.StreamErrorCode(s.fault.Load())
	if !s.closed.Swap(true) {
		code := fault
		if code == 0 {
			code = codeInternal
		}
		s.str.CancelWrite(code)
	}
	if fault == 0 {
		fault = codeNoError // we need no more of the request (RFC 9114, 4.1.1)
	}
	s.str.CancelRead(fault)
	s.str.ReleaseStreamCredit()
	s.conn.over(wasReset)
}
