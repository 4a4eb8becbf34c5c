package soak

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
)

// in returns a generator for a decision that both ends need not share.
func in(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 3)) }

// sender sends one message of HTTP/1.1.
type sender struct {
	m        *message
	to       io.Writer
	head     []byte
	chunked  bool
	none     bool
	trailers bool
	sent     *atomic.Bool // is set before the last byte is sent
	fails    bool         // break off after stop bytes
	stop     int64
}

// send returns nil when all that was to be sent is.
func (s *sender) send() error {
	r := in(s.m.pieces)
	size := s.m.size
	if s.fails {
		size = s.stop
	}
	whole := func() {
		if !s.fails {
			s.sent.Store(true)
		}
	}
	// Heads and bodies come in one piece as often as not.
	buffer := append([]byte(nil), s.head...)
	flush := func() error {
		_, err := s.to.Write(buffer)
		buffer = buffer[:0]
		return err
	}
	if s.none || size == 0 && !s.chunked {
		whole()
		return flush()
	}
	if r.IntN(2) == 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	done := int64(0)
	err := s.m.cut(size, func(piece []byte) error {
		done += int64(len(piece))
		if s.chunked {
			buffer = fmt.Appendf(buffer, "%x\r\n%s\r\n", len(piece), piece)
			if done == size && r.IntN(2) == 0 {
				return nil // goes with the last chunk
			}
		} else {
			buffer = append(buffer, piece...)
			if done == size {
				whole()
			}
		}
		return flush()
	})
	if err != nil || !s.chunked || s.fails {
		if err == nil {
			err = flush()
		}
		return err
	}
	whole()
	buffer = append(buffer, "0\r\n"...)
	if s.trailers {
		buffer = fmt.Appendf(buffer, "%s: %s\r\n", digestName, s.m.digest())
	}
	buffer = append(buffer, "\r\n"...)
	return flush()
}

// shortTunnel is told of a tunnel whose peer has ended its direction in good
// order. One that was broken off may look so too: the kernel tells of a reset
// once, and when an end that writes has been told, the end that reads sees an
// orderly end. A tunnel's own protocol has to tell what is complete.
const shortTunnel = "%s: a tunnel that was ended in good order had %d bytes of %d"

// tunnelEnd is one end of a tunnel.
type tunnelEnd struct {
	x        *exchange
	conn     net.Conn
	in       *receiver
	out      *message
	sent     *atomic.Bool // we are about to end our direction
	peerSent *atomic.Bool
	fault    fault
	faultAt  int64 // in bytes sent
	abrupt   bool
	broke    atomic.Bool // by our own doing
}

// run sends and receives all there is, and returns nil if both directions came to
// their end. r reads from the connection.
func (e *tunnelEnd) run(r io.Reader) error {
	var sending sync.WaitGroup
	var sendErr error
	sending.Go(func() {
		stop := e.out.size
		if e.fault != sound && e.fault != closeWithoutNotice {
			stop = min(e.faultAt, stop)
		}
		sendErr = e.out.cut(stop, func(piece []byte) error {
			_, err := e.conn.Write(piece)
			return err
		})
		if e.fault != sound && e.fault != closeWithoutNotice {
			e.broke.Store(true)
			part(e.conn, true) // a mere close would be the end of the tunnel
			sendErr = errLeft
			return
		}
		if sendErr == nil {
			e.sent.Store(true)
			closeWrite(e.conn)
		}
	})
	err := e.in.all(r)
	if err == nil && (!e.peerSent.Load() || e.in.got != e.in.m.size) {
		if e.peerSent.Load() && !e.broke.Load() {
			e.x.wrong(shortTunnel, e.in.what, e.in.got, e.in.m.size)
		}
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		part(e.conn, true)
	}
	sending.Wait()
	return errors.Join(err, sendErr)
}
