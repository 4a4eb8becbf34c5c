package http3

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"anyedge/pop/proxy/exchange"
)

// bodyStart is the time that a client has before the pace of its body counts.
const bodyStart = 5 * time.Second

// body is what the client sends on a stream. What has come and was not read is
// held by quic-go, within the stream's flow control window.
type body struct {
	stream   *stream
	in       *input
	trailers exchange.Fields // as the exchange sees them
	late     exchange.Fields // trailers that came, until Read has returned io.EOF
	patience time.Duration   // of one Read; 0 without bound
	expects  bool            // the client waits for 100 (Continue)
	closed   atomic.Bool

	left     int64 // of the declared length
	declared bool
	pending  bool   // the header of a frame was read, and nothing of its payload
	trailing bool   // that frame, or the last one, holds trailers
	length   uint64 // the length of that frame
	inFrame  uint64 // what is left of the present DATA frame

	got    int64         // bytes of the body
	waited time.Duration // for the client
	fault  uint64        // the code of the stream error that the client has made
	err    error         // what every further Read returns
}

func newBody(s *stream) *body { return &body{stream: s, in: &s.in} }

// Read waits for the next piece for the front's BodyIdle at most, or for as
// long as the pace allows, then returns [os.ErrDeadlineExceeded].
func (b *body) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, net.ErrClosed
	}
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if b.expects {
		b.expects = false
		b.stream.proceed()
	}
	began := time.Now()
	if err := b.setDeadline(began); err != nil {
		return 0, err
	}
	n, err := b.read(p)
	b.waited += time.Since(began)
	b.got += int64(n)
	switch {
	case err == nil || n > 0:
		return n, nil
	case b.closed.Load():
		return 0, net.ErrClosed
	}
	b.err = b.blame(err)
	return 0, b.err
}

// setDeadline bounds what follows.
func (b *body) setDeadline(now time.Time) error {
	var deadline time.Time
	if b.patience > 0 {
		wait := b.patience
		if rate := b.stream.conn.config.BodyRate; b.declared && rate > 0 {
			wait = min(wait, bodyStart+time.Duration(float64(b.got)/float64(rate)*float64(time.Second))-b.waited)
		}
		if wait <= 0 {
			return os.ErrDeadlineExceeded
		}
		deadline = now.Add(wait)
	}
	b.stream.str.SetReadDeadline(deadline)
	if b.closed.Load() { // and has just set a deadline of its own
		return net.ErrClosed
	}
	return nil
}

// read returns a piece of the body, or io.EOF after the trailers.
func (b *body) read(p []byte) (int, error) {
	for b.inFrame == 0 {
		if b.pending {
			b.pending = false
			if !b.trailing {
				b.inFrame = b.length
				continue
			}
			if err := b.readTrailers(); err != nil {
				return 0, err
			}
		}
		if err := b.frame(); err != nil {
			return 0, err
		}
	}
	n, err := b.in.read(p[:min(uint64(len(p)), b.inFrame)])
	b.inFrame -= uint64(n)
	if err != nil && n == 0 {
		return 0, within(err)
	}
	return n, nil
}

// frame reads the header of the next frame that is not empty. It returns io.EOF
// at the body's proper end.
func (b *body) frame() error {
	for {
		kind, length, err := b.in.next()
		switch {
		case err == io.EOF && b.declared && b.left > 0:
			b.fault = codeMessage // RFC 9114, 4.1.2
			return errShortBody
		case err != nil:
			return err
		case b.trailing:
			return &connError{codeFrameUnexpected, "a frame after the trailers"} // RFC 9114, 4.1
		case kind == frameHeaders:
			b.pending, b.trailing, b.length = true, true, length
			return nil
		case length == 0:
			continue
		case b.declared && length > uint64(b.left):
			b.fault = codeMessage // RFC 9114, 4.1.2
			return errLongBody
		}
		b.left -= int64(length)
		b.pending, b.length = true, length
		return nil
	}
}

var (
	errShortBody   = errors.New("the body is shorter than its length")
	errLongBody    = errors.New("the body is longer than its length")
	errBadTrailers = errors.New("the trailers are malformed or too large")
)

func (b *body) readTrailers() error {
	config := b.stream.conn.config
	h := head{limits: limits{bytes: config.MaxHeaderBytes, fields: config.MaxHeaderFields}}
	if err := b.stream.readBlock(&h, b.length); err != nil {
		return err
	}
	fields, ok := h.trailers()
	if !ok {
		b.fault = codeMessage
		return errBadTrailers
	}
	b.late = fields
	return nil
}

// blame has the client told what it did wrong, if it did, and returns the error
// for whoever reads the body.
func (b *body) blame(err error) error {
	var fatal *connError
	switch {
	case errors.As(err, &fatal):
		b.stream.conn.end(fatal)
	case b.fault != 0:
		b.stream.fault.Store(b.fault)
	case err == io.EOF:
		b.trailers = b.late
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded // perhaps within a frame's header
	default:
		return fmt.Errorf("read the request's body: %w", err)
	}
	return fmt.Errorf("%w: %w", exchange.ErrMalformed, err)
}

// Close implements [exchange.Request].Body. The client is told when the
// exchange is over.
func (b *body) Close() error {
	b.closed.Store(true)
	b.stream.str.SetReadDeadline(time.Unix(1, 0)) // long past
	return nil
}
