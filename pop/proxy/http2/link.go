package http2

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

const (
	// frameWait is how long an origin may take over its SETTINGS, and over the
	// rest of a frame; writeWait over taking what is written.
	frameWait = 10 * time.Second
	writeWait = 10 * time.Second
	// linkIdle is how long a connection without streams is kept. It is short of
	// what origins commonly wait, so that it is rarely they who close first.
	linkIdle = 45 * time.Second
	// idlePing and busyPing are how long an origin may keep silent before it is
	// asked for a sign of life, without streams and with some; pingWait how long
	// that may take. Servers of gRPC cut clients off that ping more than twice
	// between requests, or more than every five minutes within them.
	idlePing = 15 * time.Second
	busyPing = 6 * time.Minute
	pingWait = 5 * time.Second
	// Windows for responses, see limits. A reader that keeps up with the origin
	// soon has the largest.
	linkStreamWindow = 64 << 10
	maxStreamWindow  = 1 << 20
	linkWindow       = 4 << 20
)

// link is a connection to an origin.
type link struct {
	conn
	group  *group
	epoch  int
	secure bool

	// What follows is guarded by mu.
	greeted   bool      // the origin's first SETTINGS have come
	websocket bool      // the origin takes extended CONNECT
	doubt     time.Time // since when nothing seems to have come; zero without doubt

	// What follows is guarded by group.mu.
	load   int // streams
	bound  int // that load may reach
	listed bool
}

// endError is why the streams of a connection were closed with it.
type endError struct{ reason error }

// Error implements error.
func (e *endError) Error() string { return "connection to the origin ended: " + e.reason.Error() }

// Unwrap returns the reason.
func (e *endError) Unwrap() error { return e.reason }

func newLink(g *group, nc net.Conn, epoch int) *link {
	l := &link{group: g, epoch: epoch, bound: maxLoad}
	_, l.secure = nc.(*tls.Conn)
	l.side, l.client = l, true
	l.limits = limits{
		frame: frameWait, data: frameWait, write: writeWait,
		stream: linkStreamWindow, most: maxStreamWindow, conn: linkWindow,
	}
	most := g.back.config.MaxHeaderBytes
	l.init(nc, most, most/fieldOverhead)
	return l
}

// serve keeps the connection to its end.
func (l *link) serve() {
	l.greet()
	reason := l.run()
	g := l.group
	g.back.config.Log.Debug("http2 connection to an origin ended", "origin", g.to, "reason", reason)
	err := &endError{reason}
	if l.greeted {
		g.remove(l)
	} else {
		g.failed(err)
	}
	l.close(reason, err)
}

// greet sends the client's preface (RFC 9113, 3.4).
func (l *link) greet() {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.packetLocked()
	p.Write([]byte(h2.ClientPreface))
	p.framer.WriteSettings(
		h2.Setting{ID: h2.SettingEnablePush, Val: 0},
		h2.Setting{ID: h2.SettingInitialWindowSize, Val: linkStreamWindow},
		h2.Setting{ID: h2.SettingMaxHeaderListSize, Val: uint32(l.block.limit)},
	)
	p.framer.WriteWindowUpdate(0, linkWindow-defaultWindow)
	l.armLocked(l.began.Add(linger))
	l.flushLocked()
}

// settingsLocked implements [side]. With the first ones, the connection comes
// into use.
func (l *link) settingsLocked(f *h2.SettingsFrame) error {
	if push, ok := f.Value(h2.SettingEnablePush); ok && push != 0 {
		return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 6.5.2
	}
	if enabled, ok := f.Value(h2.SettingEnableConnectProtocol); ok {
		l.websocket = enabled == 1
	}
	if most, ok := f.Value(h2.SettingMaxConcurrentStreams); ok {
		l.group.rebound(l, int(min(most, maxLoad)))
	}
	if !l.greeted {
		l.greeted = true
		if !l.group.add(l) {
			l.retireLocked()
		}
	}
	return nil
}

// strayLocked implements [side].
func (l *link) strayLocked() error {
	if l.idleLocked(l.block.id) {
		return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 5.1.1
	}
	return l.spendLateLocked(countIgnored) // sent before our RST_STREAM came
}

// goneLocked implements [side]: streams beyond the last one were not processed
// (RFC 9113, 6.8).
func (l *link) goneLocked(f *h2.GoAwayFrame) error {
	l.group.remove(l)
	for id, s := range l.streams {
		if id > f.LastStreamID {
			l.closeLocked(s, fmt.Errorf("GOAWAY with %v: %w", f.ErrCode, exchange.ErrRefused), false)
		}
	}
	l.retireLocked()
	return nil
}

// retire ends the connection when its last stream ends. It is not in use any
// more.
func (l *link) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retireLocked()
}

func (l *link) retireLocked() {
	l.final = true
	if len(l.streams) == 0 {
		l.nudgeLocked()
	}
}

// pongLocked implements [side].
func (l *link) pongLocked([8]byte) error { return l.spend(countIgnored) }

// forgottenLocked implements [side].
func (l *link) forgottenLocked(*stream) { l.group.release(l) }

// overLocked implements [side].
func (l *link) overLocked() {}

// dueLocked implements [side].
func (l *link) dueLocked(now time.Time, quiet bool) (time.Time, error) {
	l.stalled = 0 // our patience with origins is that of requests
	if !quiet {
		return time.Time{}, nil
	}
	idle := l.idleSince.Add(linkIdle)
	ping := l.lastRead.Add(busyPing)
	switch {
	case len(l.streams) > 0:
		idle = time.Time{}
	case !now.Before(idle):
		return now, errIdle
	default:
		ping = l.lastRead.Add(idlePing)
	}
	doubt := l.doubt
	l.doubt = time.Time{}
	if l.pinged.IsZero() {
		if now.Before(ping) && !l.lastRead.Before(doubt) {
			return earlier(idle, ping), nil
		}
		l.pinged = now
		l.packetLocked().framer.WritePing(false, pingAlive)
	}
	by := l.pinged.Add(pingWait)
	if !now.Before(by) {
		return now, errDead
	}
	return earlier(idle, by), nil
}
