package http1

import (
	"errors"
	"io"
	"time"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// waitedBody is the largest body of known length that the head of its response
// waits for, in bytes, so that both go out together.
const waitedBody = 16 << 10

// Room around a chunk's data for its own framing, in bytes.
const (
	chunkLine = 6 // the size of a piece in hexadecimal, CR LF
	chunkTail = 7 // CR LF, and the last chunk without trailers
)

// errBodySize means that a body does not have the length that was said.
var errBodySize = errors.New("the body is longer than was said")

var continueHead = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// sendContinue answers "Expect: 100-continue" before the body is first read.
func (t *turn) sendContinue() error {
	if t.continued.Load() {
		return nil
	}
	t.sending.Lock()
	defer t.sending.Unlock()
	if t.continued.Swap(true) {
		return nil
	}
	return t.send(continueHead)
}

// forgoContinue lets no 100 be sent from here on.
func (t *turn) forgoContinue() {
	if t.continued.Load() {
		return
	}
	t.sending.Lock()
	defer t.sending.Unlock()
	t.continued.Store(true)
}

// send writes to the client.
func (t *turn) send(b []byte) error {
	c := t.c
	c.write.arm(time.Now(), c.front.config.BodyIdle)
	_, err := c.net.Write(b)
	return err
}

// Inform implements [exchange.Client].
func (t *turn) Inform(status int, fields exchange.Fields) error {
	if t.x.Request.Protocol == exchange.HTTP10 || status < 102 || status > 199 {
		return nil // RFC 9110, 15.2
	}
	t.sending.Lock()
	defer t.sending.Unlock()
	out := buffers.Take(buffers.HeadSize)
	defer buffers.Give(out)
	b := appendStatus(out.Bytes[:0], exchange.HTTP11, status)
	b = appendFields(b, fields)
	return t.send(append(b, "\r\n"...))
}

// Upgrade implements [exchange.Client]. A success of CONNECT has no framing: the
// tunnel begins behind its head (RFC 9110, 9.3.6).
func (t *turn) Upgrade(fields exchange.Fields) (exchange.Tunnel, error) {
	c := t.c
	t.hangup.stop()
	out := buffers.Take(buffers.HeadSize)
	defer buffers.Give(out)
	b := out.Bytes[:0]
	if t.x.Request.Method == "CONNECT" {
		b = appendStatus(b, t.x.Request.Protocol, 200)
	} else {
		b = appendStatus(b, exchange.HTTP11, 101)
		b = append(b, "Connection: Upgrade\r\n"...)
		b = appendField(b, "Upgrade", t.framing.upgrade)
	}
	b = appendFields(b, fields)
	t.upgraded, t.complete = true, true
	if err := t.send(append(b, "\r\n"...)); err != nil {
		c.net.Close()
		return nil, err
	}
	c.read.set(time.Time{})
	c.write.set(time.Time{})
	return newTunnel(c.net, &c.in), nil
}

// Respond implements [exchange.Client].
func (t *turn) Respond(r *exchange.Response) error {
	t.forgoContinue()
	k := t.kindOf(r)
	t.bare = k == untilClose
	t.keep = t.asked && !r.Last && k != untilClose && t.x.Refusal.Status == 0 && !t.c.front.going.Load() &&
		// The rest of a body would have to be read before the next request, and
		// whether it comes by then is not known yet.
		(t.x.Request.Body == nil || t.body.ended.Load())

	out := buffers.Take(buffers.PieceSize)
	defer buffers.Give(out)
	head := t.appendHead(out.Bytes[:0], r, k)
	if k == none || k == fixed && r.Length <= 0 {
		t.complete = true
		return t.send(head)
	}
	if r.Ready == 0 && (k != fixed || r.Length > waitedBody) || len(head) > buffers.PieceSize/2 {
		// A stream's head must not wait for its first piece.
		if err := t.send(head); err != nil {
			return err
		}
		head = head[:0]
	}
	if k == chunked {
		return t.sendChunks(out.Bytes, len(head), r)
	}
	return t.sendBody(out.Bytes, len(head), r, k)
}

// kindOf chooses the framing of a response (RFC 9112, 6.3).
func (t *turn) kindOf(r *exchange.Response) kind {
	switch {
	case bodiless(t.x.Request.Method, r.Status):
		return none
	case r.Body != nil && r.Trailers != nil && len(*r.Trailers) > 0 && t.x.Request.Protocol != exchange.HTTP10:
		return chunked // the only framing with room for the trailers that were announced
	case r.Body == nil || r.Length >= 0:
		return fixed
	case t.x.Request.Protocol == exchange.HTTP10:
		return untilClose
	}
	return chunked
}

// sendBody sends a body as it is. The head's size bytes in out go with the
// first piece.
func (t *turn) sendBody(out []byte, size int, r *exchange.Response, k kind) error {
	left := r.Length
	for {
		n, err := r.Body.Read(out[size:])
		if left -= int64(n); k == fixed && left < 0 {
			return errBodySize
		}
		if err != nil && err != io.EOF {
			if size > 0 {
				t.send(out[:size]) // so that the client learns the status
			}
			return err
		}
		if size+n > 0 {
			// What the origin sends is passed on at once: it may be an event
			// that the client waits for.
			if err := t.send(out[:size+n]); err != nil {
				return err
			}
		}
		size = 0
		switch {
		case k == fixed && left == 0:
			t.complete = true
			return nil
		case err == io.EOF && k == fixed:
			return io.ErrUnexpectedEOF
		case err == io.EOF:
			t.complete = true
			return nil
		}
	}
}

// sendChunks sends a body in the chunked coding (RFC 9112, 7.1). The head's
// size bytes in out go with the first chunk.
func (t *turn) sendChunks(out []byte, size int, r *exchange.Response) error {
	for {
		n, err := r.Body.Read(out[size+chunkLine : len(out)-chunkTail])
		if err != nil && err != io.EOF {
			if size > 0 {
				t.send(out[:size])
			}
			return err
		}
		piece := frameChunk(out, size, n)
		if err == io.EOF {
			piece = appendLastChunk(piece, r.Trailers)
		}
		if len(piece) > 0 {
			if err := t.send(piece); err != nil {
				return err
			}
		}
		if err == io.EOF {
			t.complete = true
			return nil
		}
		size = 0
	}
}

// frameChunk makes a chunk of n bytes that stand chunkLine bytes behind the
// first size bytes of out, which are to precede it. It returns both. There is
// no chunk if n is 0.
func frameChunk(out []byte, size, n int) []byte {
	if n == 0 {
		return out[:size]
	}
	digits := 1
	for n>>(4*digits) > 0 {
		digits++
	}
	start := chunkLine - digits - 2
	copy(out[start:], out[:size])
	at := start + size
	for i := range digits {
		out[at+i] = "0123456789abcdef"[n>>(4*(digits-1-i))&15]
	}
	out[at+digits], out[at+digits+1] = '\r', '\n'
	return append(out[start:size+chunkLine+n], "\r\n"...)
}

// appendLastChunk appends the end of a body in the chunked coding.
func appendLastChunk(b []byte, trailers *exchange.Fields) []byte {
	b = append(b, "0\r\n"...)
	if trailers != nil {
		for _, field := range *trailers {
			if exchange.TrailerAllowed(field.Name) {
				b = appendField(b, field.Name, field.Value)
			}
		}
	}
	return append(b, "\r\n"...)
}
