package http2

import (
	"context"
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
	// maxStreams is how many streams a client may have open.
	maxStreams = 128
	// streamWindow and connWindow are how much of requests' bodies may be on
	// its way or unread, in bytes.
	streamWindow = 256 << 10
	connWindow   = 1 << 20
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

// conn is a client's connection.
type conn struct {
	front *Front
	nc    net.Conn
	info  *exchange.Conn
	ctx   context.Context // of all exchanges
	end   context.CancelFunc
	began time.Time
	tasks sync.WaitGroup // handlers and writers

	// What follows is owned by the goroutine that reads.
	reader   *reader // nil while parked
	inFrame  bool    // the reader's framer is within a frame
	block    block   // the header block that is coming in
	budget   budget
	lastRead time.Time     // when something came
	frameAt  time.Time     // when the present frame or header block began
	patience time.Duration // from frameAt to its end
	pinged   time.Time     // when a sign of life was asked for; zero if one came since
	settled  bool          // the client's first SETTINGS have come

	mu        sync.Mutex
	streams   map[uint32]*stream // that are not closed, but for tunnels' also those whose handler runs
	lastID    uint32             // the highest ID of a stream that the client has begun
	closed    recent             // streams that were closed lately
	idleSince time.Time          // when the last stream was closed
	peer      int64              // the client's SETTINGS_INITIAL_WINDOW_SIZE
	window    int64              // what may be sent
	waiting   []*stream          // for window, in order
	recv      int64              // what the client may send
	unread    int64              // what it may send when that is announced
	drainBy   time.Time          // when goAway follows on drain; zero without
	final     bool               // streams above lastID are not served

	active  int       // handlers that run
	pending []*stream // that wait for a handler to return
	parked  []*worker

	out      *packet    // to be sent; nil if nothing is
	writing  bool       // a goroutine writes
	room     *sync.Cond // signaled when out was taken, and when writing ends
	writeBy  time.Time  // the write deadline
	broken   bool       // writing has failed
	ended    bool       // no frame is read any more
	nudged   bool       // the read deadline is past on purpose
	tableSet bool       // noTable was sent

	// What happened since the reader last looked.
	updates   int // WINDOW_UPDATEs that the DATA sent may be answered with
	completed int // responses sent to their end
	stalled   int // responses that were not taken
}

func newConn(ctx context.Context, f *Front, nc net.Conn, info *exchange.Conn) *conn {
	now := time.Now()
	c := &conn{
		front: f, nc: nc, info: info,
		began: now, lastRead: now, frameAt: now, patience: f.config.HeaderTimeout, idleSince: now,
		streams: make(map[uint32]*stream),
		peer:    defaultWindow, window: defaultWindow, recv: connWindow,
	}
	c.ctx, c.end = context.WithCancel(ctx)
	c.room = sync.NewCond(&c.mu)
	c.block.init(f.config.MaxHeaderBytes)
	c.announce()
	return c
}

// serve serves the connection to its end.
func (c *conn) serve() {
	err := c.greet()
	for err == nil {
		var frame h2.Frame
		if frame, err = c.next(); err == nil {
			err = c.handle(frame)
		}
		if err != nil {
			err = c.outlive(err)
		}
	}
	c.close(err)
}

// announce queues the server's preface, which is to come before all else
// (RFC 9113, 3.4).
func (c *conn) announce() {
	f := c.packetLocked().framer
	f.WriteSettings(
		h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: maxStreams},
		h2.Setting{ID: h2.SettingInitialWindowSize, Val: streamWindow},
		h2.Setting{ID: h2.SettingMaxHeaderListSize, Val: uint32(c.front.config.MaxHeaderBytes)},
		h2.Setting{ID: h2.SettingEnableConnectProtocol, Val: 1},
		h2.Setting{ID: h2.SettingNoRFC7540Priorities, Val: 1},
	)
	f.WriteWindowUpdate(0, connWindow-defaultWindow)
}

// greet reads the client's preface.
func (c *conn) greet() error {
	c.borrow()
	c.mu.Lock()
	c.armLocked(c.frameAt.Add(min(c.patience, linger)))
	c.mu.Unlock()
	var preface [len(h2.ClientPreface)]byte
	if _, err := io.ReadFull(c.reader, preface[:]); err != nil {
		return err
	}
	if string(preface[:]) != h2.ClientPreface {
		return h2.ConnectionError(h2.ErrCodeProtocol)
	}
	return nil
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
		return c.spend(countIgnored) // the client makes no use of our streams, and may go on with its own
	case *h2.PushPromiseFrame:
		return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 8.4
	}
	return c.spend(countIgnored) // RFC 9113, 4.1
}

// spend counts what the client makes us do.
func (c *conn) spend(kind int) error { return c.budget.spend(kind, c.lastRead.Sub(c.began)) }

// spendResetLocked counts a request that came to nothing. Those that came to
// their end make up for it.
func (c *conn) spendResetLocked() error {
	c.budget.earn(countReset, int32(c.completed))
	c.completed = 0
	return c.spend(countReset)
}

// outlive resets a stream that the client has got wrong. It returns other
// errors, which are the connection's.
func (c *conn) outlive(err error) error {
	var e h2.StreamError
	if !errors.As(err, &e) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.StreamID > c.lastID {
		return h2.ConnectionError(e.Code) // no RST_STREAM on an idle stream (RFC 9113, 6.4)
	}
	c.resetLocked(e.StreamID, e.Code, errStream)
	return c.spendResetLocked()
}

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
	// The other parameters need no heed: our frames have the least size that
	// all clients take, our header blocks use no table, and we push nothing.
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
	return nil
}

func (c *conn) onPing(f *h2.PingFrame) error {
	if !f.IsAck() {
		if err := c.spend(countPing); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.packetLocked().framer.WritePing(true, f.Data)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Data == pingDrain && !c.drainBy.IsZero() && !c.final {
		c.goAwayLocked()
		return nil
	}
	return c.spend(countIgnored)
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
	if f.StreamID > c.lastID {
		return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 6.4
	}
	if s := c.streams[f.StreamID]; s != nil {
		c.closeLocked(s, errReset, false)
	}
	return c.spendResetLocked()
}

// close ends the connection for the reason given.
func (c *conn) close(reason error) {
	c.front.config.Log.Debug("http2 connection ended", "client", c.info.Client, "reason", reason)
	code, tell := c.explain(reason)
	c.mu.Lock()
	c.ended = true
	for _, s := range c.streams {
		c.closeLocked(s, errConnGone, false)
	}
	c.end()
	c.retireLocked()
	c.nc.SetWriteDeadline(time.Now().Add(farewell))
	if tell && (code != h2.ErrCodeNo || !c.final) {
		c.packetLocked().framer.WriteGoAway(c.lastID, code, nil)
	}
	for c.writing {
		c.room.Wait()
	}
	if tell {
		c.flushLocked()
	}
	tell = tell && !c.broken
	c.mu.Unlock()

	if tell {
		c.linger()
	}
	c.nc.Close()
	c.tasks.Wait()
	c.park()
	if c.out != nil {
		c.out.release()
	}
}

// explain returns what the client is told at the end, if anything.
func (c *conn) explain(reason error) (code h2.ErrCode, tell bool) {
	var connection h2.ConnectionError
	var flood floodError
	switch {
	case errors.As(reason, &connection):
		return h2.ErrCode(connection), true
	case errors.As(reason, &flood):
		c.front.config.Metrics.floods.WithLabelValues(string(flood)).Inc()
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
	c.nc.SetReadDeadline(time.Now().Add(farewell))
	var discard [512]byte
	for {
		if _, err := c.nc.Read(discard[:]); err != nil {
			return
		}
	}
}

var (
	errReset    = fmt.Errorf("stream reset by the client: %w", io.ErrUnexpectedEOF)
	errStream   = fmt.Errorf("the stream breaks the protocol: %w", exchange.ErrMalformed)
	errConnGone = fmt.Errorf("connection ended: %w", net.ErrClosed)
)
