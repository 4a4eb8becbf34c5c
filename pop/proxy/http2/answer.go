package http2

import (
	"fmt"
	"slices"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

// blockLocked implements [user]: interim responses, the final one and trailers.
func (t *trip) blockLocked() error {
	if t.answered {
		return t.trailersLocked()
	}
	b := &t.conn.block
	status := b.statusCode()
	switch {
	case status == 0, status == 101, status < 200 && b.end: // RFC 9113, 8.1 and 8.6
		return h2.StreamError{StreamID: t.id, Code: h2.ErrCodeProtocol}
	case status < 200:
		if t.informed++; t.informed > maxInterim {
			return h2.StreamError{StreamID: t.id, Code: h2.ErrCodeEnhanceYourCalm}
		}
		if status == 100 {
			t.upload.goOnLocked()
			return nil
		}
		t.interims = append(t.interims, interim{status, slices.Clone(b.fields)})
		signal(t.in.wake)
		return nil
	}
	if !t.acceptLocked(status) {
		return h2.StreamError{StreamID: t.id, Code: h2.ErrCodeProtocol} // RFC 9113, 8.1.1
	}
	t.answered, t.in.begun = true, true
	t.upload.answeredLocked()
	if b.end {
		t.in.endLocked(t.in.late[:0])
		t.conn.remoteClosedLocked(&t.stream)
	}
	signal(t.in.wake)
	return nil
}

// acceptLocked makes the block the final response's head. It returns false if
// its length is none, or cannot be met.
func (t *trip) acceptLocked(status int) bool {
	b, r, in := &t.conn.block, &t.response, &t.in
	length := int64(-1)
	if b.hasLength {
		var ok bool
		if length, ok = exchange.ParseLength(b.length); !ok {
			return false
		}
	}
	bodiless := t.request.Method == "HEAD" || status == 204 || status == 304
	switch {
	case t.key != "" && status < 300: // a tunnel has no length (RFC 9110, 9.3.6)
		length = -1
	case bodiless:
		in.declared = true
		if status == 204 {
			length = -1
		}
	case length >= 0:
		in.declared, in.left = true, length
		if b.end && length > 0 {
			return false
		}
	case b.end:
		length = 0
	}
	r.Status, r.Length = status, length
	r.Fields, b.fields = b.fields, r.Fields[:0]
	t.trailers = b.announced()
	return true
}

// beginLocked makes the response what its receiver is to see.
func (t *trip) beginLocked() {
	r := &t.response
	r.Body, r.Trailers = t, &t.trailers
	if t.key == "" || r.Status >= 300 {
		r.Ready = t.in.held
		return
	}
	// What an origin says on HTTP/1.1 (RFC 6455, 4.2.2).
	r.Status, r.Tunnel = 101, &tunnel{stream: &t.stream}
	r.Fields.Del("Sec-WebSocket-Accept")
	r.Fields = append(r.Fields,
		exchange.Field{Name: "Connection", Value: "Upgrade"},
		exchange.Field{Name: "Upgrade", Value: "websocket"},
		exchange.Field{Name: "Sec-WebSocket-Accept", Value: exchange.WebSocketAccept(t.key)},
	)
}

// resetLocked implements [user].
func (t *trip) resetLocked(code h2.ErrCode) {
	err := fmt.Errorf("stream reset by the origin with %v", code)
	if code == h2.ErrCodeRefusedStream {
		err = fmt.Errorf("%w: %w", exchange.ErrRefused, err)
	}
	t.conn.closeLocked(&t.stream, err, false)
}

// statusCode returns the status of a response's head, 0 if it is none.
func (b *block) statusCode() int {
	if b.malformed || b.tooLarge() || b.selfDependent || len(b.status) != 3 {
		return 0
	}
	n := 0
	for i := range 3 {
		if b.status[i] < '0' || b.status[i] > '9' {
			return 0
		}
		n = 10*n + int(b.status[i]-'0')
	}
	if n < 100 || n > 599 { // RFC 9110, 15
		return 0
	}
	return n
}
