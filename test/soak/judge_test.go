package soak

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// result is what a client saw of an exchange.
type result struct {
	status   int
	own      bool  // the edge answered in its own name
	complete bool  // the response looked complete
	left     bool  // the client broke off as planned
	unserved bool  // the connection ended politely before the exchange's turn
	err      error // what ended it otherwise
}

// checkResponse checks the head of a final response, and its body.
func (x *exchange) checkResponse(res *http.Response, stop int64, leave func()) (out result) {
	out.status = res.StatusCode
	t := x.try(res.Header.Get(tryField))
	if t == nil {
		return x.ownAnswer(res)
	}
	if res.StatusCode != x.status {
		x.wrong("status %d, want %d", res.StatusCode, x.status)
	}
	if got := res.Header.Get(sizeField); got != strconv.FormatInt(x.plan.response.size, 10) {
		x.wrong("the response's head says size %q", got)
	}
	m := &x.plan.response
	r := x.receive("response", m, &x.soak.tally.down, stop)
	switch err := r.all(res.Body); {
	case err == errLeft:
		leave()
		out.left = true
	case err != nil && m.none && res.StatusCode == http.StatusNotModified && errors.Is(err, io.ErrUnexpectedEOF):
		out.complete = true // golang.org/x/net/http2 wants a body if there is a Content-Length
	case err != nil:
		out.err = err
	case x.bare && x.flaky && !t.sent.Load():
		out.complete = true // the end of an origin that was killed is that of the response
	case !m.none && !t.sent.Load():
		x.wrong("an unfinished response looked complete to the client after %d bytes", r.got)
		out.complete = true
	default:
		out.complete = true
		if m.none {
			if r.got > 0 {
				x.wrong("a response without a body has one of %d bytes", r.got)
			}
			return out
		}
		r.complete(res.Header, res.Trailer, !x.te || x.old)
	}
	return out
}

// ownAnswer reads an answer that no origin gave.
func (x *exchange) ownAnswer(res *http.Response) (out result) {
	out.status, out.own = res.StatusCode, true
	text := make([]byte, 1024)
	n := 0
	for {
		k, err := res.Body.Read(text[n:])
		n += k
		if err != nil || n == len(text) {
			out.complete = err != nil && err.Error() == "EOF"
			out.err = err
			break
		}
	}
	switch res.StatusCode {
	case 502, 503, 504, 404, 408:
	default:
		x.wrong("the edge answered %d: %s", res.StatusCode, text[:n])
	}
	return out
}

// judge says how an exchange went, and whether that is right.
func (x *exchange) judge(r result, excused bool) {
	s := x.soak
	outcome := "broken"
	switch {
	case r.unserved:
		outcome = "unserved"
	case r.left:
		outcome = "left"
	case r.own:
		outcome = strconv.Itoa(r.status)
	case r.complete:
		outcome = "ok"
	case r.status == 0:
		outcome = "no answer"
	}
	s.tally.exchange(x, outcome)
	s.forget(x)
	took := time.Since(x.begun)
	if took > patience {
		x.wrong("took %s", took)
	}
	if excused || r.unserved || s.stopping.Load() {
		return
	}
	switch {
	case x.client != sound && !(x.tunnel && r.complete):
		// It got what it asked for.
	case x.halfway && took > halfClosed:
		// It counts as gone.
	case x.origin == sound || x.origin == closeWithoutNotice:
		if !r.complete || r.own && !x.flaky {
			// Its origin was killed. On QUIC a reset may lose the head as well (RFC
			// 9000, 19.4).
			began := r.status != 0 || strings.HasPrefix(x.pair, "h3")
			if x.flaky && !r.complete && began || x.flaky && x.tunnel {
				return
			}
			x.wrong("nobody broke it off, but it ended with %s (%d): %v", outcome, r.status, r.err)
		}
	case x.origin == failBeforeHead || x.origin == failInRequest || x.origin == garbageHead:
		if !r.own || r.status < 500 {
			x.wrong("its origin did not answer, but it ended with %s (%d): %v", outcome, r.status, r.err)
		}
	case r.complete && !x.tunnel:
		if !r.own {
			x.wrong("its origin broke it off, but it ended with %s (%d)", outcome, r.status)
		}
	}
}

// halfClosed is how long a client that has ended its sending direction can count
// on being served while nothing happens.
const halfClosed = 1500 * time.Millisecond
