package http2

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

const (
	// streamWindow and connWindow are how much of requests' bodies may be on
	// its way or unread, in bytes.
	streamWindow = 256 << 10
	connWindow   = 1 << 20
)

// frontConn is a client's connection.
type frontConn struct {
	conn
	front *Front
	info  *exchange.Conn
	ctx   context.Context // of all exchanges
	end   context.CancelFunc

	// What follows is guarded by mu.
	drainBy time.Time // when goAway follows on drain; zero without
	active  int       // handlers that run
	pending []*turn   // that wait for a handler to return
	parked  []*worker
}

func newFrontConn(ctx context.Context, f *Front, nc net.Conn, info *exchange.Conn) *frontConn {
	config := &f.config
	c := &frontConn{front: f, info: info}
	c.side = c
	c.limits = limits{
		frame: config.HeaderTimeout, data: config.BodyIdle, write: config.BodyIdle,
		stream: streamWindow, most: streamWindow, conn: connWindow,
	}
	c.init(nc, config.MaxHeaderBytes, config.MaxHeaderFields)
	c.ctx, c.end = context.WithCancel(ctx)
	c.announce()
	return c
}

// serve serves the connection to its end.
func (c *frontConn) serve() {
	reason := c.greet()
	if reason == nil {
		reason = c.run()
	}
	c.front.config.Log.Debug("http2 connection ended", "client", c.info.Client, "reason", reason)
	if flood, ok := errors.AsType[floodError](reason); ok {
		c.front.config.Metrics.floods.WithLabelValues(string(flood)).Inc()
	}
	c.close(reason, errConnGone)
}

// announce queues the server's preface, which is to come before all else
// (RFC 9113, 3.4).
func (c *frontConn) announce() {
	f := c.packetLocked().framer
	f.WriteSettings(
		h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: uint32(c.front.config.MaxStreams)},
		h2.Setting{ID: h2.SettingInitialWindowSize, Val: streamWindow},
		h2.Setting{ID: h2.SettingMaxHeaderListSize, Val: uint32(c.front.config.MaxHeaderBytes)},
		h2.Setting{ID: h2.SettingEnableConnectProtocol, Val: 1},
		h2.Setting{ID: h2.SettingNoRFC7540Priorities, Val: 1},
	)
	f.WriteWindowUpdate(0, connWindow-defaultWindow)
}

// greet reads the client's preface.
func (c *frontConn) greet() error {
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

// settingsLocked implements [side]. We push nothing, and begin no streams of our
// own.
func (c *frontConn) settingsLocked(*h2.SettingsFrame) error { return nil }

// goneLocked implements [side]: the client makes no use of our streams, and may
// go on with its own.
func (c *frontConn) goneLocked(*h2.GoAwayFrame) error { return nil }

// pongLocked implements [side].
func (c *frontConn) pongLocked(data [8]byte) error {
	if data == pingDrain && !c.drainBy.IsZero() && !c.final {
		c.goAwayLocked()
		return nil
	}
	return c.spend(countIgnored)
}

// forgottenLocked implements [side].
func (c *frontConn) forgottenLocked(s *stream) {
	if s.err == nil {
		return
	}
	t := s.user.(*turn)
	t.cancel()
	if i := slices.Index(c.pending, t); i >= 0 {
		c.pending = slices.Delete(c.pending, i, i+1) // nobody waits for it
	}
}

// overLocked implements [side].
func (c *frontConn) overLocked() {
	c.end()
	c.retireLocked()
}

// dueLocked implements [side].
func (c *frontConn) dueLocked(now time.Time, quiet bool) (next time.Time, err error) {
	for ; c.stalled > 0; c.stalled-- {
		if err := c.budget.spend(countStall, now.Sub(c.began)); err != nil {
			return now, err
		}
	}
	if !c.drainBy.IsZero() && !c.final {
		if !now.Before(c.drainBy) {
			c.goAwayLocked()
		}
		next = c.drainBy
	}
	if !quiet || c.final && len(c.streams) == 0 {
		return next, nil
	}
	c.retireLocked()
	config := &c.front.config
	switch {
	case len(c.streams) == 0:
		by := later(c.lastRead, c.idleSince).Add(config.IdleTimeout)
		if !now.Before(by) {
			return now, errIdle
		}
		return earlier(next, by), nil
	case c.pinged.IsZero():
		by := c.lastRead.Add(config.IdleTimeout)
		if now.Before(by) {
			return earlier(next, by), nil
		}
		c.pinged = now
		c.packetLocked().framer.WritePing(false, pingAlive)
	}
	by := c.pinged.Add(config.HeaderTimeout)
	if !now.Before(by) {
		return now, errDead
	}
	return earlier(next, by), nil
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// drain asks the client to begin no further stream. Those whose request is
// already on its way are still served: only once the client must have seen the
// first GOAWAY, a second one names the last stream (RFC 9113, 6.8).
func (c *frontConn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.final || !c.drainBy.IsZero() {
		return
	}
	c.drainBy = time.Now().Add(c.front.config.HeaderTimeout)
	f := c.packetLocked().framer
	f.WriteGoAway(math.MaxInt32, h2.ErrCodeNo, nil)
	f.WritePing(false, pingDrain)
	c.tasks.Go(c.flush)
	c.nudgeLocked()
}

// goAway serves no stream beyond those begun, and ends the connection after
// them.
func (c *frontConn) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.final {
		return
	}
	c.goAwayLocked()
	c.tasks.Go(c.flush)
}

func (c *frontConn) goAwayLocked() {
	c.final, c.lastServed = true, c.lastID
	c.packetLocked().framer.WriteGoAway(c.lastID, h2.ErrCodeNo, nil)
	if len(c.streams) == 0 {
		c.nudgeLocked()
	}
}
