package soak

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// A fault is what one side does to an exchange.
type fault string

// The faults of clients. Those "in the request" happen before it is complete.
const (
	sound               fault = "sound"
	closeInHead         fault = "close in the head" // HTTP/1.1 only
	closeInRequest      fault = "close in the request"
	resetInRequest      fault = "reset in the request"
	halfCloseInRequest  fault = "half-close in the request"  // HTTP/1.1 only
	cutInRequest        fault = "connection cut in request"  // not HTTP/1.1
	closeInResponse     fault = "close in the response"      // on streams, of the response's body
	resetInResponse     fault = "reset in the response"      // on streams, of the context
	cutInResponse       fault = "connection cut in response" // not HTTP/1.1
	closeBeforeResponse fault = "close before the response"
)

// The faults of origins.
const (
	failInRequest      fault = "break off in the request"
	failBeforeHead     fault = "break off before the head"
	garbageHead        fault = "garbage for a head" // HTTP/1.1 only
	failInResponse     fault = "break off in the response"
	garbageInResponse  fault = "garbage in the response" // HTTP/1.1 only
	closeWithoutNotice fault = "close a kept connection" // HTTP/1.1 only; the response is sound
)

// message is one direction of an exchange.
type message struct {
	content
	none     bool   // there is no body
	sized    bool   // its length is told ahead
	trailers bool   // its digest is told at the end; not if sized
	pieces   uint64 // seeds the sizes of pieces
	slow     bool   // the sender pauses
	reader   bool   // the receiver pauses
}

// body reports whether anything follows the head.
func (m *message) body() bool { return !m.none && (!m.sized || m.size > 0) }

// plan is all that is decided of an exchange before it begins.
type plan struct {
	id       string
	method   string
	request  message
	response message
	status   int
	hints    int           // responses of status 103 before the final one
	expect   bool          // 100-continue
	early    int64         // the origin answers after so many bytes of the request; -1: after all
	late     time.Duration // the origin waits before it answers
	last     bool          // the origin takes no further request on its connection
	bare     bool          // the response ends with the origin's connection; HTTP/1.1 only
	te       bool          // the client takes trailers
	old      bool          // the client speaks HTTP/1.0; HTTP/1.1 only
	halfway  bool          // the client ends its sending direction after the request; HTTP/1.1 only
	tunnel   bool          // WebSocket: request and response are what goes up and down
	abrupt   bool          // the origin resets its connection rather than close it, if it breaks off

	client   fault
	clientAt int64 // bytes into the direction concerned
	origin   fault
	originAt int64
}

// largest bodies are rare.
const largest = 2 << 20

// size draws a size: each order of magnitude is as likely.
func size(r *rand.Rand) int64 {
	top := 17.0
	if r.IntN(50) == 0 {
		top = 21
	}
	return min(int64(math.Exp2(r.Float64()*top))-1, largest)
}

func newMessage(r *rand.Rand) message {
	m := message{
		content: content{start: r.Int64N(materialSize), size: size(r)},
		sized:   r.IntN(2) == 0,
		pieces:  r.Uint64(),
		slow:    r.IntN(12) == 0,
		reader:  r.IntN(12) == 0,
	}
	m.trailers = !m.sized && r.IntN(2) == 0
	return m
}

// newPlan draws a plan for a client of HTTP/1.1 or of a protocol with streams.
func newPlan(r *rand.Rand, client, sequence uint64, streams, flaky bool) *plan {
	p := &plan{
		id:     fmt.Sprintf("%d-%d", client, sequence),
		method: pick(r, "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE"),
		status: pick(r, 200, 200, 200, 200, 201, 404, 500, 204, 304),
		early:  -1,
		client: sound, origin: sound,
		request: newMessage(r), response: newMessage(r),
		te:     r.IntN(2) == 0,
		last:   r.IntN(20) == 0,
		bare:   r.IntN(20) == 0,
		old:    !streams && r.IntN(25) == 0,
		abrupt: r.IntN(2) == 0,
	}
	if r.IntN(15) == 0 {
		p.tunnel, p.method, p.old = true, "GET", false
	}
	switch p.method {
	case "GET", "HEAD", "DELETE":
		p.request.none = !p.tunnel
	}
	if p.request.none {
		p.request.size, p.request.sized, p.request.trailers = 0, true, false
	}
	if p.status == 204 || p.status == 304 || p.method == "HEAD" {
		p.response.none = !p.tunnel
	}
	if r.IntN(10) == 0 {
		p.hints = 1 + r.IntN(3)
	}
	if r.IntN(15) == 0 {
		p.late = time.Duration(r.IntN(300)) * time.Millisecond
	}
	if !p.request.none && !p.old {
		p.expect = r.IntN(8) == 0
		if r.IntN(8) == 0 {
			p.early = r.Int64N(p.request.size + 1)
		}
	}
	if p.old {
		p.request.sized, p.request.trailers, p.te = true, false, false
	}
	if p.bare {
		p.response.sized, p.response.trailers = false, false
		p.abrupt = true // else its end would be one
	}
	p.drawFaults(r, streams)
	if p.origin == closeWithoutNotice && !flaky {
		p.origin = sound // it breaks off others' requests
	}
	if p.tunnel {
		p.expect, p.early, p.bare, p.last, p.hints = false, -1, false, false, 0
	}
	p.halfway = !streams && !p.tunnel && p.client == sound && r.IntN(25) == 0
	return p
}

func (p *plan) drawFaults(r *rand.Rand, streams bool) {
	inRequest := []fault{closeInHead, closeInRequest, resetInRequest, halfCloseInRequest}
	inResponse := []fault{closeBeforeResponse, closeInResponse, resetInResponse}
	if streams {
		inRequest = []fault{closeInRequest, resetInRequest, resetInRequest}
		inResponse = []fault{closeBeforeResponse, closeInResponse, resetInResponse}
		if r.IntN(8) == 0 {
			inRequest, inResponse = []fault{cutInRequest}, []fault{cutInResponse}
		}
	}
	if r.IntN(6) == 0 {
		if p.request.none || r.IntN(2) == 0 {
			p.client, p.clientAt = pick(r, inResponse...), r.Int64N(p.response.size+1)
		} else {
			// Without a length, all of the bytes are not all of the message.
			p.client, p.clientAt = pick(r, inRequest...), r.Int64N(p.request.size+1)
			if p.request.sized && p.clientAt == p.request.size {
				p.clientAt--
			}
			if p.clientAt < 0 { // an empty body of known length is complete with the head
				p.client, p.clientAt = pick(r, inResponse...), 0
			}
		}
	}
	if r.IntN(6) == 0 {
		p.origin = pick(r, failInRequest, failBeforeHead, garbageHead, failInResponse, failInResponse, garbageInResponse, closeWithoutNotice)
		switch p.origin {
		case failInRequest:
			p.originAt = r.Int64N(p.request.size + 1)
		case failInResponse, garbageInResponse:
			p.originAt = r.Int64N(p.response.size + 1)
			if p.response.sized && p.originAt == p.response.size {
				p.originAt--
			}
			if p.originAt < 0 || p.response.none {
				p.origin, p.originAt = failBeforeHead, 0
			}
		}
		if p.origin == closeWithoutNotice {
			p.last, p.bare = false, false
		}
	}
}

// resets reports whether a client fault is a reset of a connection.
func (f fault) resets() bool {
	return f == resetInRequest || f == resetInResponse || f == cutInRequest || f == cutInResponse
}

// inRequest reports whether a client's fault leaves its request incomplete.
func (f fault) inRequest() bool {
	switch f {
	case closeInHead, closeInRequest, resetInRequest, halfCloseInRequest, cutInRequest:
		return true
	}
	return false
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// most is how many pauses slow one message down.
const most = 8

// cut calls use for the pieces of the first n bytes of m, with pauses between
// them if m is slow.
func (m *message) cut(n int64, use func(piece []byte) error) error {
	r := rand.New(rand.NewPCG(m.pieces, 1))
	pauses := 0
	for done := int64(0); done < n; {
		want := int64(math.Exp2(r.Float64() * 16))
		want = min(max(want, m.size/64), n-done)
		if err := use(m.at(done, want)); err != nil {
			return err
		}
		done += want
		if m.slow && pauses < most && r.IntN(2) == 0 {
			pauses++
			time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
		}
	}
	return nil
}
