package http3

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"anyedge/pop/proxy/exchange"
)

// Error codes (RFC 9114, 8.1, and RFC 9204, 6).
const (
	codeNoError            = 0x100
	codeInternal           = 0x102
	codeStreamCreation     = 0x103
	codeClosedCritical     = 0x104
	codeFrameUnexpected    = 0x105
	codeFrame              = 0x106
	codeExcessiveLoad      = 0x107
	codeID                 = 0x108
	codeSettings           = 0x109
	codeMissingSettings    = 0x10a
	codeRequestRejected    = 0x10b
	codeRequestCancelled   = 0x10c
	codeRequestIncomplete  = 0x10d
	codeMessage            = 0x10e
	codeQPACKDecompression = 0x200
	codeQPACKEncoder       = 0x201
	codeQPACKDecoder       = 0x202
)

const (
	// linger is how long an idle connection is kept for the end of its last
	// response to be read, because QUIC tells nobody what was acknowledged and
	// forgets the rest when a connection is closed.
	linger = 5 * time.Second
	// resets is how many requests a client may reset at once, and resetRate how
	// many per second in the long run (CVE-2023-44487).
	resets, resetRate = 256, 32
	// everyStream is an ID above those of all requests (RFC 9114, 5.2).
	everyStream = 1<<62 - 4
)

// connError ends the connection.
type connError struct {
	code   quic.ApplicationErrorCode
	reason string
}

func (e *connError) Error() string { return fmt.Sprintf("%s (%#x)", e.reason, uint64(e.code)) }

// conn is a client's connection.
type conn struct {
	config *FrontConfig
	qc     *quic.Conn
	peer   *peer
	began  time.Time
	ctx    context.Context // of all exchanges
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	info *exchange.Conn // for the next request; owned by the goroutine that accepts

	// What follows is guarded by mu.
	mu        sync.Mutex
	control   *quic.SendStream
	cause     *connError    // why the connection ends
	active    int           // requests under way
	idleSince time.Time     // when the last one was over
	next      quic.StreamID // above all that were accepted
	last      quic.StreamID // those from here on are not served
	idle      *time.Timer   // calls expire
	draining  *time.Timer   // calls goAway; nil without
	reset     int           // requests that the client has reset, less what was forgiven
	forgiven  time.Time     // when that was last brought up to date
	critical  [3]bool       // the client has opened its control, encoder and decoder streams
}

func newConn(ctx context.Context, qc *quic.Conn) *conn {
	now := time.Now()
	p := qc.Context().Value(peerKey{}).(*peer)
	c := &conn{config: p.config, qc: qc, peer: p, began: now, idleSince: now, forgiven: now, last: math.MaxInt64}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c
}

// serve serves the connection to its end.
func (c *conn) serve() {
	defer c.tasks.Wait()
	c.tasks.Go(c.awaitHandshake)
	c.tasks.Go(c.acceptOneWay)
	err := c.accept()

	c.cancel()
	c.mu.Lock()
	c.idle.Stop()
	if c.draining != nil {
		c.draining.Stop()
	}
	cause := c.cause
	c.mu.Unlock()
	if cause != nil {
		err = cause
	} else {
		cause = &connError{codeNoError, ""}
	}
	if c.complete() {
		c.config.Ended(addrPort(c.qc.RemoteAddr()).Addr(), c.qc.ConnectionStats().SmoothedRTT, time.Since(c.began))
	}
	c.config.Log.Debug("connection ended", "client", c.qc.RemoteAddr().String(), "error", err)
	c.qc.CloseWithError(cause.code, cause.reason)
}

// accept begins requests until the connection is to end.
func (c *conn) accept() error {
	for {
		str, err := c.qc.AcceptStream(c.ctx)
		if err != nil {
			return err
		}
		if c.info == nil {
			c.info = c.describe()
		} else if client := addrPort(c.qc.RemoteAddr()); client != c.info.Client {
			moved := *c.info
			moved.Client = client
			c.info = &moved
			c.config.Metrics.migrations.Inc()
		}
		if !c.begin(str.StreamID()) {
			str.CancelRead(codeRequestRejected)
			str.CancelWrite(codeRequestRejected)
			str.ReleaseStreamCredit()
			continue
		}
		s := newStream(c, str)
		c.tasks.Go(s.serve)
	}
}

// begin counts a request in. It returns false if the client was told that it
// would not be served.
func (c *conn) begin(id quic.StreamID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id >= c.last {
		return false
	}
	c.next = id + 4
	c.active++
	c.idle.Stop()
	return true
}

// over counts a request out.
func (c *conn) over(wasReset bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if wasReset {
		back := int(now.Sub(c.forgiven) * resetRate / time.Second)
		if back > 0 {
			c.reset = max(0, c.reset-back)
			c.forgiven = now
		}
		if c.reset++; c.reset > resets && c.cause == nil {
			c.config.Metrics.floods.Inc()
			c.endLocked(&connError{codeExcessiveLoad, "too many requests reset"})
		}
	}
	if c.active--; c.active == 0 {
		c.idleSince = now
		c.idle.Reset(c.patienceLocked())
	}
}

// patienceLocked is how long the connection may go on without a request.
func (c *conn) patienceLocked() time.Duration {
	if c.last != math.MaxInt64 {
		return max(linger, 4*c.qc.ConnectionStats().SmoothedRTT)
	}
	return c.config.IdleTimeout
}

// expire ends the connection if no request has been under way for long enough.
// The client is told before, and one that has just sent a request learns that it
// was not processed (RFC 9114, 5.2).
func (c *conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch left := c.patienceLocked() - now.Sub(c.idleSince); {
	case c.active > 0:
	case left > 0:
		c.idle.Reset(left)
	case !c.complete(): // a handshake has a time limit of its own
		c.idleSince = now
		c.idle.Reset(c.patienceLocked())
	case c.last == math.MaxInt64:
		c.idleSince = now
		c.refuseLocked()
	default:
		c.endLocked(&connError{codeNoError, "idle"})
	}
}

// drain asks the client to go: see [Front.Drain].
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining != nil || c.last != math.MaxInt64 {
		return
	}
	c.goAwayLocked(everyStream)
	soon := max(100*time.Millisecond, 2*c.qc.ConnectionStats().SmoothedRTT)
	c.draining = time.AfterFunc(min(soon, c.config.HeaderTimeout), c.goAway)
}

// goAway refuses further requests, and ends the connection after those that are
// under way.
func (c *conn) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == math.MaxInt64 {
		c.refuseLocked()
	}
}

// refuseLocked says from which request on none is served.
func (c *conn) refuseLocked() {
	c.last = c.next
	c.goAwayLocked(c.last)
	if c.active == 0 {
		c.idle.Reset(max(0, c.patienceLocked()-time.Since(c.idleSince)))
	}
}

func (c *conn) goAwayLocked(id quic.StreamID) {
	// It fails if the connection is gone, and never waits: what is not sent yet
	// on this stream fits into one packet.
	c.control.Write(appendFrame(nil, frameGoAway, appendVarint(nil, uint64(id))))
}

// end ends the connection.
func (c *conn) end(cause *connError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(cause)
}

func (c *conn) endLocked(cause *connError) {
	if c.cause == nil {
		c.cause = cause
		c.cancel()
	}
}
