package http2

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

const (
	// defaultWindow is every window's size at first (RFC 9113, 6.9.2).
	defaultWindow = 65535
	// maxWindow is the largest that a window may become (RFC 9113, 6.9.1).
	maxWindow = math.MaxInt32
	// maxSettings is how many parameters one SETTINGS frame may hold.
	maxSettings = 64
)

// Payloads of our pings.
var (
	pingAlive = [8]byte{'a', 'l', 'i', 'v', 'e'}
	pingDrain = [8]byte{'d', 'r', 'a', 'i', 'n'}
)

// side is what the two ends of a connection do differently. The reading
// goroutine calls it, with the mutex held.
type side interface {
	// strayLocked takes a header block for a stream that is not open.
	strayLocked() error
	// settingsLocked takes the peer's parameters, which are valid, for what conn
	// has no use for.
	settingsLocked(f *h2.SettingsFrame) error
	// pongLocked takes the answer to a ping.
	pongLocked(data [8]byte) error
	// goneLocked takes a GOAWAY.
	goneLocked(f *h2.GoAwayFrame) error
	// forgottenLocked is told that a stream was closed.
	forgottenLocked(s *stream)
	// dueLocked does what has become due, and returns when to look again, or
	// why the connection is to end. The zero time means that nothing else is to
	// become due. quiet says that no frame has come for a while; only then is
	// the peer held to what it owes us.
	dueLocked(now time.Time, quiet bool) (time.Time, error)
	// overLocked is told that the connection has ended: all streams were closed.
	overLocked()
}

// limits are what one side of a connection grants the other.
type limits struct {
	frame  time.Duration // to read the rest of a frame or header block, and the preface
	data   time.Duration // to read the rest of a DATA frame
	write  time.Duration // to take what is written
	stream int64         // bytes of a stream's body that may be on their way or unread, at first
	most   int64         // what that may become for a reader that keeps up
	conn   int64         // the same of all streams, see onData
}

// conn is one end of a connection: frames in and out, windows and streams. What
// is up to only one of the ends is left to its side.
type conn struct {
	side   side
	client bool // the peer is an origin; we begin the streams
	nc     net.Conn
	limits limits
	began  time.Time
	tasks  sync.WaitGroup // handlers and writers

	// What follows is owned by the goroutine that reads.
	reader   *reader // nil while parked
	inFrame  bool    // the reader's framer is within a frame
	block    block   // the header block that is coming in
	budget   budget
	lastRead time.Time     // when something came
	frameAt  time.Time     // when the present frame or header block began
	patience time.Duration // from frameAt to its end
	pinged   time.Time     // when a sign of life was asked for; zero if one came since
	settled  bool          // the peer's first SETTINGS have come

	mu         sync.Mutex
	streams    map[uint32]*stream // that are not closed; nil if none was begun since the connection was parked
	lastID     uint32             // the highest ID of a stream that was begun
	closed     recent             // streams that were closed lately
	idleSince  time.Time          // when the last stream was closed
	peer       int64              // the peer's SETTINGS_INITIAL_WINDOW_SIZE
	window     int64              // what may be sent
	waiting    []*stream          // for window, in order
	recv       int64              // what the peer may send
	unread     int64              // what it may send when that is announced
	lastServed uint32             // lastID when final was set, on the server's side
	final      bool               // no stream is begun any more, and the connection ends with the last

	out      *packet   // to be sent; nil if nothing is
	writing  bool      // a goroutine writes
	room     sync.Cond // signaled when out was taken, and when writing ends
	writeBy  time.Time // the write deadline
	broken   bool      // writing has failed
	ended    bool      // no frame is read any more
	nudged   bool      // the read deadline is past on purpose
	tableSet bool      // noTable was sent

	// What is paid for, however late it comes.
	updates int // WINDOW_UPDATEs that the DATA sent may be answered with
	pings   int // PINGs with which gRPC measures how long DATA takes
	late    int // frames for a stream of ours that is closed: a head, trailers and resets

	// What happened since the reader last looked.
	completed int // requests of the client that came to their end
	stalled   int // bodies that were not taken in time
}

// init readies c, whose limits are set, to be read.
func (c *conn) init(nc net.Conn, maxHeaderBytes, maxFields int) {
	now := time.Now()
	c.nc = nc
	c.began, c.lastRead, c.frameAt, c.idleSince = now, now, now, now
	c.patience = c.limits.frame
	c.peer, c.window, c.recv = defaultWindow, defaultWindow, c.limits.conn
	c.room.L = &c.mu
	c.block.init(maxHeaderBytes, maxFields)
	c.block.response = c.client
}

// run handles frames until the connection is to end, and returns why.
func (c *conn) run() error {
	for {
		frame, err := c.next()
		if err == nil {
			err = c.handle(frame)
		}
		if err != nil {
			err = c.outlive(err)
		}
		if err != nil {
			return err
		}
	}
}

// handle does what a frame asks for.
func (c *conn) handle(frame h2.Frame) error {
	if !c.settled {
		if f, ok := frame.(*h2.SettingsFrame); !ok || f.IsAck() {
			return h2.ConnectionError(h2.ErrCodeProtocol)
		}
		c.settled = true
	}
	switch f := frame.(type) {
	case *h2.DataFrame:
		return c.onData(f)
	case *h2.HeadersFrame:
		return c.onHeaders(f)
	case *h2.ContinuationFrame:
		return c.onContinuation(f)
	case *h2.RSTStreamFrame:
		return c.onReset(f)
	case *h2.SettingsFrame:
		return c.onSettings(f)
	case *h2.PingFrame:
		return c.onPing(f)
	case *h2.WindowUpdateFrame:
		return c.onWindowUpdate(f)
	case *h2.PriorityFrame:
		return c.onPriority(f)
	case *h2.GoAwayFrame:
		if err := c.spend(countIgnored); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.side.goneLocked(f)
	case *h2.PushPromiseFrame:
		return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 8.4; origins are told that we take none
	}
	return c.spend(countIgnored) // RFC 9113, 4.1
}

// spend counts what the peer makes us do.
func (c *conn) spend(kind int) error { return c.budget.spend(kind, c.lastRead.Sub(c.began)) }

// spendLateLocked counts what came to nothing, or came too late. From clients,
// requests that came to their end make up for it. From origins, it is paid for by
// what we sent.
func (c *conn) spendLateLocked(kind int) error {
	if c.late > 0 {
		c.late--
		return nil
	}
	c.budget.earn(countReset, int32(c.completed))
	c.completed = 0
	return c.spend(kind)
}

// outlive resets a stream that the peer has got wrong. It returns other errors,
// which are the connection's.
func (c *conn) outlive(err error) error {
	var e h2.StreamError
	if !errors.As(err, &e) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idleLocked(e.StreamID) {
		return h2.ConnectionError(e.Code) // no RST_STREAM on an idle stream (RFC 9113, 6.4)
	}
	ours := c.client && c.streams[e.StreamID] != nil // it takes a request of ours to do that
	fault := errStream
	if c.client {
		fault = errAnswer
	}
	c.resetLocked(e.StreamID, e.Code, fault)
	if ours {
		return nil
	}
	return c.spendLateLocked(countReset)
}

// idleLocked reports whether a stream was never begun.
func (c *conn) idleLocked(id uint32) bool { return id > c.lastID || c.client && id%2 == 0 }

func (c *conn) onSettings(f *h2.SettingsFrame) error {
	if f.IsAck() {
		return c.spend(countIgnored)
	}
	if err := c.spend(countSettings); err != nil {
		return err
	}
	if f.NumSettings() > maxSettings {
		return floodError(FloodSettings)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Of the other parameters neither side needs to heed those for our encoder:
	// our frames have the least size that all peers take, and our header blocks
	// use no table.
	err := f.ForeachSetting(func(s h2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		if s.ID != h2.SettingInitialWindowSize {
			return nil
		}
		grown := int64(s.Val) - c.peer
		c.peer = int64(s.Val)
		for _, st := range c.streams {
			if st.window += grown; st.window > maxWindow {
				return h2.ConnectionError(h2.ErrCodeFlowControl) // RFC 9113, 6.9.2
			}
			st.signal()
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.packetLocked().framer.WriteSettingsAck()
	return c.side.settingsLocked(f)
}

func (c *conn) onPing(f *h2.PingFrame) error {
	if f.IsAck() {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.side.pongLocked(f.Data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pings > 0 {
		c.pings--
	} else if err := c.spend(countPing); err != nil {
		return err
	}
	c.packetLocked().framer.WritePing(true, f.Data)
	return nil
}

func (c *conn) onPriority(f *h2.PriorityFrame) error {
	if f.StreamDep == f.StreamID {
		return h2.StreamError{StreamID: f.StreamID, Code: h2.ErrCodeProtocol} // RFC 7540, 5.3.1
	}
	return c.spend(countIgnored)
}

func (c *conn) onReset(f *h2.RSTStreamFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idleLocked(f.StreamID) {
		return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 6.4
	}
	if s := c.streams[f.StreamID]; s != nil {
		if s.user.resetLocked(f.ErrCode); c.client {
			return nil // it takes a request of ours to do that
		}
	}
	return c.spendLateLocked(countReset)
}

// close ends the connection for the reason given: whoever waits on a stream
// gets err. It returns when the peer was told and all tasks are over.
func (c *conn) close(reason, err error) {
	code, tell := explain(reason)
	c.mu.Lock()
	c.ended = true
	for _, s := range c.streams {
		c.closeLocked(s, err, false)
	}
	c.side.overLocked()
	c.nc.SetWriteDeadline(time.Now().Add(farewell))
	if tell && (code != h2.ErrCodeNo || !c.final || c.client) {
		last := c.lastID
		switch {
		case c.client:
			last = 0 // of the streams that an origin begins
		case c.final:
			last = c.lastServed // a GOAWAY does not name more than one before (RFC 9113, 6.8)
		}
		c.packetLocked().framer.WriteGoAway(last, code, nil)
	}
	for c.writing {
		c.room.Wait()
	}
	if tell {
		c.flushLocked()
	}
	tell = tell && !c.broken && !c.client
	c.mu.Unlock()

	if tell {
		c.linger()
	}
	c.nc.Close()
	c.tasks.Wait()
	c.park()
	if c.out != nil {
		c.out.release()
		c.out = nil
	}
}

// explain returns what the peer is told at the end, if anything.
func explain(reason error) (code h2.ErrCode, tell bool) {
	var connection h2.ConnectionError
	var flood floodError
	switch {
	case errors.As(reason, &connection):
		return h2.ErrCode(connection), true
	case errors.As(reason, &flood):
		return h2.ErrCodeEnhanceYourCalm, true
	case errors.Is(reason, h2.ErrFrameTooLarge):
		return h2.ErrCodeFrameSize, true
	case errors.Is(reason, errIdle), errors.Is(reason, errGone), errors.Is(reason, errSlow):
		return h2.ErrCodeNo, true
	}
	return 0, false
}

// linger waits for the client to close, so that what it has sent meanwhile does
// not make the kernel reset the connection before our last words were read.
func (c *conn) linger() {
	if w, ok := c.nc.(interface{ CloseWrite() error }); !ok || w.CloseWrite() != nil {
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(parting))
	var discard [512]byte
	for {
		if _, err := c.nc.Read(discard[:]); err != nil {
			return
		}
	}
}

var (
	errReset    = fmt.Errorf("stream reset by the peer: %w", io.ErrUnexpectedEOF)
	errStream   = fmt.Errorf("the stream breaks the protocol: %w", exchange.ErrMalformed)
	errAnswer   = errors.New("the response breaks the protocol")
	errConnGone = fmt.Errorf("connection ended: %w", net.ErrClosed)
)
