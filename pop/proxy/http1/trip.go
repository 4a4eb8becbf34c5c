package http1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"anyedge/pop/proxy/exchange"
)

// glance is how long an exchange waits for an origin before it begins to look
// out for the end of its context.
const glance = 250 * time.Millisecond

var (
	errInterim   = errors.New("too many interim responses")
	errUnasked   = errors.New("the origin switched to a protocol that it was not asked for")
	errAbandoned = errors.New("the request's body broke off")
)

var trips = sync.Pool{New: func() any { return new(trip) }}

// trip is one request to an origin and its response, whose body it is.
type trip struct {
	back     *Back
	ctx      context.Context
	request  *exchange.Request
	to       netip.AddrPort
	inform   func(status int, fields exchange.Fields)
	link     *link // nil when it was given back or closed
	in       reader
	framing  framing
	response exchange.Response
	trailers exchange.Fields
	decoder  decoder
	keep     bool // the connection may carry another request

	answered bool // a byte of a response came
	touched  bool // the request's body was; once the trip is abandoned

	wait    time.Duration // for what is read at present; 0 is for ever
	watched func() bool   // stops the watch over ctx; nil if there is none
	ended   chan struct{} // closed when the watch has run
	broken  atomic.Bool   // reading is to end
	upload  *upload       // of the present try; nil if the body needs none
}

// try sends the request on a connection and reads the response's head.
func (t *trip) try(l *link) error {
	t.link = l
	t.in.src = (*source)(t)
	if err := t.send(); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	t.wait = t.request.HeadWait
	for range maxInterim {
		if err := t.readHead(); err != nil {
			return fmt.Errorf("read response: %w", err)
		}
		switch status := t.response.Status; {
		case status >= 200:
			return t.begin()
		case status == 101:
			return t.switchOver()
		case status == 100:
			t.upload.goOn()
		default:
			t.inform(status, t.response.Fields)
		}
		t.in.recycle()
	}
	return errInterim
}

// readHead reads the next head into t.response and t.framing.
func (t *trip) readHead() error {
	head, err := t.in.section(maxResponseHead)
	if err != nil {
		return unexpected(err)
	}
	t.response = exchange.Response{Fields: t.response.Fields[:0]}
	old, err := parseResponse(head, &t.response, &t.framing)
	if err != nil {
		return err
	}
	if err := t.framing.codings(old); err != nil && t.response.Status >= 200 {
		return err
	}
	t.keep = !t.framing.close && (!old || t.framing.keep)
	return nil
}

// begin sets up the body of a final response (RFC 9112, 6.3).
func (t *trip) begin() error {
	r, f := &t.response, &t.framing
	t.upload.answered()
	k, length := untilClose, int64(0)
	r.Length = -1
	switch {
	case bodiless(t.request.Method, r.Status):
		k = none
		if r.Status != 204 {
			r.Length = f.length
		}
		// A body that must not be there may come all the same.
		t.keep = t.keep && (r.Status != 204 || f.length <= 0 && !f.encoded)
	case f.chunked > 0:
		k = chunked
	case f.length >= 0:
		k, length, r.Length = fixed, f.length, f.length
	default:
		t.keep = false
	}
	t.trailers = append(t.trailers[:0], f.trailers...)
	r.Body, r.Trailers = t, &t.trailers
	t.decoder.begin(&t.in, k, length, &t.trailers, maxResponseHead, maxFields)
	t.decoder.answer = true
	t.wait = t.request.BodyWait
	if t.decoder.err == io.EOF {
		t.finish()
		return nil
	}
	r.Ready = t.decoder.ready()
	return nil
}

// switchOver makes a tunnel of the connection.
func (t *trip) switchOver() error {
	if t.request.Upgrade == "" {
		return errUnasked
	}
	if !t.unwatch() {
		return context.Cause(t.ctx)
	}
	l := t.link
	l.read.set(time.Time{})
	l.write.set(time.Time{})
	// Not part of t: it may be closed once more after t is used again.
	t.response.Length, t.response.Body, t.response.Tunnel = -1, t, newTunnel(l.Conn, &t.in)
	t.decoder.begin(&t.in, none, 0, nil, 0, 0)
	return nil
}

// Read reads the response's body.
func (t *trip) Read(p []byte) (int, error) {
	n, err := t.decoder.Read(p)
	if err == io.EOF && t.link != nil && t.response.Tunnel == nil {
		if t.decoder.kind == untilClose && t.link.tcp != nil && wasReset(t.link.tcp) {
			t.decoder.err = io.ErrUnexpectedEOF
			return n, t.decoder.err
		}
		t.finish()
	}
	return n, err
}

// Close ends the use of the response. It is called once.
func (t *trip) Close() error {
	t.abandon()
	t.free()
	return nil
}

// finish gives the connection back after the whole response.
func (t *trip) finish() {
	l := t.link
	quiet := !t.decoder.over && t.in.buffered() == 0 && !(l.secure && t.decoder.unseen)
	if t.keep && quiet && t.upload.finished() && t.unwatch() {
		t.link = nil
		t.back.idle.put(t.to, l, time.Now())
		return
	}
	t.abandon()
}

// abandon ends the use of the connection, and of the request's body if it was
// not sent to its end.
func (t *trip) abandon() {
	if t.link == nil {
		return
	}
	t.unwatch()
	if t.request.Upgrade != "" && t.link.tcp != nil {
		t.link.tcp.SetLinger(0) // to an origin that has just switched it is no orderly end
		t.link.tcp.Close()
	}
	t.link.Close()
	t.touched = t.upload.stop() || t.touched
	t.link, t.upload = nil, nil
}

// free makes t ready for another request.
func (t *trip) free() {
	t.in.release()
	t.in.src = nil
	fields := t.response.Fields
	clear(fields)
	clear(t.trailers)
	t.framing.reset()
	*t = trip{in: t.in, framing: t.framing, trailers: t.trailers[:0], response: exchange.Response{Fields: fields[:0]}}
	trips.Put(t)
}

// source is the connection to the origin as t.in reads it.
type source trip

// Read waits for the origin for t.wait at most.
func (s *source) Read(p []byte) (int, error) {
	t := (*trip)(s)
	began := time.Now()
	span := glance
	if t.wait > 0 {
		span = min(glance, t.wait)
	}
	t.link.read.arm(began, span)
	for {
		if t.broken.Load() { // asked after the deadline was set, see interrupt
			return 0, t.cause()
		}
		n, err := t.link.Read(p)
		if n > 0 || !isTimeout(err) {
			t.answered = t.answered || n > 0
			if !t.answered {
				err = unanswered(err)
			}
			return n, err
		}
		now := time.Now()
		left := time.Minute
		if t.wait > 0 {
			left = t.wait - now.Sub(t.upload.waitSince(began, now))
			if left <= 0 && !t.broken.Load() {
				return 0, exchange.ErrSlow
			}
		}
		t.watch()
		t.link.read.set(now.Add(left))
	}
}

// unanswered makes the end of a connection the one that came too early.
func unanswered(err error) error { return fmt.Errorf("%w: %w", exchange.ErrUnanswered, err) }

// watch looks out for the end of the context.
func (t *trip) watch() {
	if t.watched != nil {
		return
	}
	ended := make(chan struct{})
	t.ended = ended
	t.watched = context.AfterFunc(t.ctx, func() {
		defer close(ended)
		t.interrupt()
	})
}

// unwatch ends the watch, and returns whether the context had not ended.
func (t *trip) unwatch() bool {
	stopped := t.watched == nil || t.watched()
	if !stopped {
		<-t.ended
	}
	t.watched = nil
	return stopped
}

// interrupt lets what reads the connection come back.
func (t *trip) interrupt() {
	t.broken.Store(true)
	t.link.SetReadDeadline(past)
}

// cause returns why reading was interrupted.
func (t *trip) cause() error {
	if err := context.Cause(t.ctx); err != nil {
		return err
	}
	return errAbandoned
}
