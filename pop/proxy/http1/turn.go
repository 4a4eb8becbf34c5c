package http1

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"anyedge/pop/proxy/exchange"
)

var turns = sync.Pool{New: func() any { return new(turn) }}

// turn is one request on a client's connection and its response. It implements
// [exchange.Client].
type turn struct {
	c        *conn
	x        exchange.Exchange
	framing  framing
	body     requestBody
	trailers exchange.Fields // of the request
	hangup   *hangup
	asked    bool // the client does not mind another request on its connection
	keep     bool // the response left the connection fit for it
	complete bool // the response was sent to its end
	upgraded bool

	bare bool // the response's body ends with the connection

	// sending is held while an interim response is sent, because a body that is
	// read by another goroutine may have to answer 100.
	sending   sync.Mutex
	continued atomic.Bool // 100 was sent, or is not to be any more
}

// serve serves the request that begins in c.in, and returns whether another
// one may follow.
func (t *turn) serve(c *conn) (next bool) {
	t.c = c
	if t.hangup == nil {
		t.hangup = new(hangup)
	}
	t.hangup.begin(c)
	x, r := &t.x, &t.x.Request
	x.Conn, x.Client = c.info, t
	r.Protocol = exchange.HTTP11 // until it is known

	head, err := c.head()
	x.Start = time.Now()
	if err == nil {
		err = parseRequest(head, r, &t.framing, c.front.limits)
	} else if f := refuse(err, c.in.unread(), c.front.config.MaxHeaderBytes, isTimeout(err)); f != nil {
		err = f
	}
	if f, ok := errors.AsType[*fault](err); ok {
		x.Refusal = exchange.Refusal{Status: f.status, Reason: f.reason}
	} else if err != nil {
		return false // gone, or silent for too long
	}
	if x.Refusal.Status == 0 {
		t.begin()
	}

	c.front.config.Handler(t.hangup, x)

	t.hangup = t.hangup.end()
	unread := x.Refusal.Status != 0 || r.Method == "CONNECT" || r.Body != nil && !t.body.finish()
	switch {
	case t.upgraded:
		return false
	case !t.complete:
		c.abort(t.bare)
		return false
	case unread || !t.keep && (t.asked || c.in.buffered() > 0):
		// The client may be sending another request, which it does not know is
		// one too many.
		c.drain()
		return false
	}
	return t.keep
}

// begin sets up what a valid head says about the connection and the body.
func (t *turn) begin() {
	r, f := &t.x.Request, &t.framing
	// What follows CONNECT is meant for the tunnel, even if there is none.
	t.asked = !f.close && (r.Protocol == exchange.HTTP11 || f.keep) && r.Method != "CONNECT"
	t.continued.Store(!f.expect)
	k, length := none, int64(0)
	switch {
	case f.chunked > 0:
		k, length = chunked, -1
	case f.length > 0:
		k, length = fixed, f.length
	}
	if k == none {
		return
	}
	t.trailers = append(t.trailers[:0], f.trailers...)
	t.body.begin(t, k, length)
	r.Length, r.Body = length, &t.body
	if k == chunked {
		r.Trailers = &t.trailers
	}
	if !f.expect { // else it is only to be read when it is asked for
		r.Ready = t.body.decoder.ready()
	}
	t.hangup.hold()
}

// clean makes t ready for another connection, without what it refers to.
func (t *turn) clean() {
	fields := t.x.Request.Fields
	clear(fields)
	t.x = exchange.Exchange{}
	t.x.Request.Fields = fields[:0]
	clear(t.trailers)
	t.trailers = t.trailers[:0]
	t.framing.reset()
	t.body.clean()
	t.c, t.asked, t.keep, t.complete, t.upgraded, t.bare = nil, false, false, false, false, false
}
