package http1

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// send sends the request's head, and its body if that is at hand. Otherwise
// the body is left to an upload.
func (t *trip) send() error {
	r := t.request
	size := buffers.HeadSize
	if r.Body != nil {
		size = buffers.PieceSize
	}
	out := buffers.Take(size)
	defer buffers.Give(out)
	coded := r.Body != nil && (r.Length < 0 || r.Trailers != nil && len(*r.Trailers) > 0) // trailers need chunks
	b := t.appendRequest(out.Bytes[:0], coded)
	whole := r.Body != nil && !coded && r.Ready >= r.Length && len(b)+int(r.Length) < len(out.Bytes)
	if whole {
		t.touched = true
		n, err := readWhole(r.Body, out.Bytes[len(b):], r.Length)
		if err != nil {
			return err
		}
		b = b[:len(b)+n]
	}
	if r.HeadWait > 0 {
		t.link.write.arm(time.Now(), r.HeadWait)
	}
	if n, err := t.link.Write(b); err != nil {
		switch {
		case isTimeout(err):
			return exchange.ErrSlow
		case n == 0 && !t.touched:
			return fmt.Errorf("%w: %w", exchange.ErrConnect, err)
		}
		return unanswered(err)
	}
	if r.Body != nil && !whole {
		t.upload = startUpload(t, coded)
	}
	return nil
}

// readWhole reads a body of exactly length bytes to p, which has room for one
// more.
func readWhole(body io.Reader, p []byte, length int64) (int, error) {
	for n := 0; ; {
		m, err := body.Read(p[n : length+1])
		n += m
		switch {
		case int64(n) > length:
			return 0, errBodySize
		case err == io.EOF && int64(n) < length:
			return 0, io.ErrUnexpectedEOF
		case err == io.EOF:
			return n, nil
		case err != nil:
			return 0, err
		}
	}
}

// appendRequest appends the request's head.
func (t *trip) appendRequest(b []byte, coded bool) []byte {
	r := t.request
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	if r.Authority != "" {
		b = append(b, r.Authority...)
	} else {
		b = t.to.AppendTo(b)
	}
	b = append(b, "\r\n"...)
	b = appendFields(b, r.Fields)
	switch {
	case r.Upgrade != "":
		b = append(b, "Connection: Upgrade\r\n"...)
		b = appendField(b, "Upgrade", r.Upgrade)
	case r.AcceptsTrailers:
		b = append(b, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	switch {
	case coded:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		b = appendAnnounced(b, r.Trailers)
	case r.Body != nil:
		b = appendLength(b, r.Length)
	case r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH":
		b = appendLength(b, 0) // RFC 9110, 8.6: content is expected of these
	}
	return append(b, "\r\n"...)
}

// upload sends a request's body to the origin while the response is waited
// for. A nil upload is one that is over.
type upload struct {
	request *exchange.Request
	link    *link
	coded   bool
	broke   func() // called when the client's body breaks off

	quit  chan struct{} // closed when the body is not wanted any more
	asked chan struct{} // closed when the origin said 100; nil if it is not waited for
	done  chan struct{} // closed at the end
	ready bool          // asked was closed; of the exchange's goroutine
	state atomic.Int32  // uploadHeld and so on

	waiting atomic.Bool  // for the client
	waited  atomic.Int64 // when that ended last, since the process began
	read    atomic.Bool  // the whole body was
	sent    bool         // it was too; valid once done is closed
}

// The states of an upload.
const (
	uploadHeld  int32 = iota // the body was not touched yet
	uploadBegun              // it is read, or was
	uploadOff                // it was called off: the body stays untouched
)

// epoch is when the process began, more or less.
var epoch = time.Now()

func startUpload(t *trip, coded bool) *upload {
	u := &upload{
		request: t.request, link: t.link, coded: coded, broke: t.interrupt,
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	if t.request.Fields.Has("Expect") {
		u.asked = make(chan struct{})
	}
	go u.run()
	return u
}

func (u *upload) run() {
	defer close(u.done)
	if u.asked != nil {
		timer := time.NewTimer(continueTimeout)
		defer timer.Stop()
		select {
		case <-u.quit:
			return
		case <-u.asked:
		case <-timer.C: // an origin that knows no 100 (RFC 9110, 10.1.1)
		}
	}
	if !u.state.CompareAndSwap(uploadHeld, uploadBegun) {
		return
	}
	err := u.copy()
	u.sent = err == nil
	var client *clientError
	if errors.As(err, &client) {
		u.broke()
	}
	// If the origin does not take it, it may have answered all the same.
}

// clientError is why a client's body broke off.
type clientError struct{ error }

// copy copies the body to its end.
func (u *upload) copy() error {
	out := buffers.Take(buffers.PieceSize)
	defer buffers.Give(out)
	left := u.request.Length
	for {
		u.waiting.Store(true)
		n, err := u.request.Body.Read(out.Bytes[chunkLine : len(out.Bytes)-chunkTail])
		now := time.Now()
		u.waited.Store(int64(now.Sub(epoch)))
		u.waiting.Store(false)
		if err != nil && err != io.EOF {
			return &clientError{err}
		}
		left -= int64(n)
		if u.request.Length >= 0 && (left < 0 || err == io.EOF && left > 0) {
			return &clientError{errBodySize}
		}
		u.read.Store(err == io.EOF)
		piece := out.Bytes[chunkLine : chunkLine+n]
		if u.coded {
			piece = frameChunk(out.Bytes, 0, n)
			if err == io.EOF {
				piece = appendLastChunk(piece, u.request.Trailers)
			}
		}
		if u.request.HeadWait > 0 {
			u.link.write.arm(now, u.request.HeadWait)
		}
		if len(piece) > 0 {
			if _, err := u.link.Write(piece); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// waitSince returns since when the origin is waited for: since began, but not
// for the time that went into waiting for the client.
func (u *upload) waitSince(began, now time.Time) time.Time {
	switch {
	case u == nil:
	case u.waiting.Load():
		return now
	default:
		if waited := epoch.Add(time.Duration(u.waited.Load())); waited.After(began) {
			return waited
		}
	}
	return began
}

// goOn says that the origin wants the body.
func (u *upload) goOn() {
	if u != nil && u.asked != nil && !u.ready {
		u.ready = true
		close(u.asked)
	}
}

// answered says that the final response came: a body that the origin has not
// asked for is not sent any more.
func (u *upload) answered() {
	if u != nil && u.asked != nil && !u.ready {
		u.callOff()
	}
}

// finished reports whether the whole body was sent. It waits for the last
// piece.
func (u *upload) finished() bool {
	if u == nil {
		return true
	}
	if !u.read.Load() {
		return false
	}
	<-u.done
	return u.sent
}

// callOff ends an upload that has not touched the body, and returns whether it
// has not.
func (u *upload) callOff() (untouched bool) {
	if u.state.CompareAndSwap(uploadHeld, uploadOff) {
		close(u.quit)
	}
	return u.state.Load() == uploadOff
}

// stop ends the upload, and returns whether it has touched the body. The
// connection was closed before.
func (u *upload) stop() (touched bool) {
	if u == nil {
		return false
	}
	if touched = !u.callOff(); touched {
		u.request.Body.Close()
	}
	<-u.done
	return touched
}
