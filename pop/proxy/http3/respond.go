package http3

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

var (
	errTwice = errors.New("the response was begun already")
	errShort = fmt.Errorf("response body is shorter than its length: %w", io.ErrUnexpectedEOF)
	errLong  = errors.New("response body is longer than its length")
)

// Inform implements [exchange.Client]. 101 does not exist (RFC 9114, 4.5).
func (s *stream) Inform(status int, fields exchange.Fields) error {
	if status < 102 || status > 199 {
		return nil
	}
	s.head.Lock()
	defer s.head.Unlock()
	if s.headSent {
		return errTwice
	}
	return s.interim(status, fields)
}

// proceed sends 100 (Continue) to a client that waits for it.
func (s *stream) proceed() {
	s.head.Lock()
	defer s.head.Unlock()
	if !s.headSent {
		s.interim(100, nil) // if it fails, reading does too
	}
}

func (s *stream) interim(status int, fields exchange.Fields) error {
	b := newBlock()
	defer b.release()
	b.status(status)
	b.fields(fields)
	return s.write(b.frame())
}

// begin sends what begins with the final response's head.
func (s *stream) begin(p []byte) error {
	s.head.Lock()
	defer s.head.Unlock()
	if s.headSent {
		return errTwice
	}
	s.headSent = true
	return s.write(p)
}

// write returns when the client has granted room for all of p, and fails if it
// took nothing for BodyIdle.
func (s *stream) write(p []byte) error {
	for {
		s.str.SetWriteDeadline(time.Now().Add(s.conn.config.BodyIdle))
		n, err := s.str.Write(p)
		if err == nil || n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		p = p[n:]
	}
}

// Respond implements [exchange.Client].
func (s *stream) Respond(r *exchange.Response) error {
	noContent := r.Status == 304 || s.x.Request.Method == "HEAD"
	empty := noContent || r.Status == 204 || r.Body == nil
	if empty && !noContent && r.Length > 0 {
		return errShort
	}
	head := newBlock()
	defer head.release()
	head.status(r.Status)
	if r.Length >= 0 && r.Status != 204 { // RFC 9110, 8.6
		head.length(r.Length)
	}
	head.fields(r.Fields)
	if r.Last {
		s.conn.drain()
	}
	if !empty {
		return s.stream(head.frame(), r)
	}
	if err := s.begin(head.frame()); err != nil {
		return err
	}
	if noContent {
		s.close()
		return nil
	}
	return s.complete(r.Trailers)
}

// complete sends the trailers and ends the message.
func (s *stream) complete(trailers *exchange.Fields) error {
	if trailers != nil && len(*trailers) > 0 {
		b := newBlock()
		defer b.release()
		b.trailers(*trailers)
		if !b.empty() {
			if err := s.write(b.frame()); err != nil {
				return err
			}
		}
	}
	s.close()
	return nil
}

// stream sends a head and the body that follows it. The head does not wait for
// the body, unless that is short or its beginning is at hand.
func (s *stream) stream(head []byte, r *exchange.Response) error {
	b := buffers.Take(buffers.PieceSize)
	defer buffers.Give(b)
	piece := b.Bytes[:buffers.PieceSize]
	// The head goes in front of the first piece, if it leaves room for one.
	at := copy(piece[:len(piece)/2], head)
	if at < len(head) || r.Ready == 0 && (r.Length < 0 || r.Length > int64(len(piece)-at-frameHeader)) {
		if err := s.begin(head); err != nil {
			return err
		}
		at = 0
	}
	for left := r.Length; ; {
		data := piece[at+frameHeader:]
		n, err := r.Body.Read(data)
		if r.Length >= 0 {
			left -= int64(n)
			if left == 0 && err == nil && n < len(data) {
				// It is complete. The end is to go in the same packet.
				var beyond int
				beyond, err = r.Body.Read(data[n:])
				left -= int64(beyond)
			}
			if left < 0 {
				return errLong
			}
		}
		end := err == io.EOF
		switch {
		case err != nil && !end:
			return err
		case end && left > 0:
			return errShort
		}
		out := piece[:at]
		if n > 0 {
			out = piece[:at+frameHeader+n]
			putFrameHeader(out[at:], frameData, n)
		}
		if at > 0 {
			err = s.begin(out)
		} else {
			err = s.write(out)
		}
		if err != nil {
			return err
		}
		if end {
			return s.complete(r.Trailers)
		}
		at = 0
	}
}
