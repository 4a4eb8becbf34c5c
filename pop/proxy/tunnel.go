package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"anyedge/origin"
	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
	"anyedge/pop/proxy/http1"
)

// tunnelLooks is how often per idle timeout it is asked whether the kernel moved
// anything.
const tunnelLooks = 4

// tunnel switches the client's connection to what the origin has accepted, and
// copies both ways until both ends are done, nothing moved in either direction
// for the listener's idle timeout, or ctx ends.
func (f *forward) tunnel(ctx context.Context, res *exchange.Response) {
	x, origin := f.x, res.Tunnel
	defer origin.Close()
	client, err := x.Client.Upgrade(res.Fields)
	if errors.Is(err, exchange.ErrHandshake) {
		f.answer(502, exchange.OutcomeOriginFailed, "the origin gave no valid answer")
		return
	}
	x.Status = res.Status
	if err != nil {
		x.Outcome = exchange.OutcomeClientGone
		return
	}
	x.Outcome = exchange.OutcomeUpgraded

	// The timer and the context may come at the very end: what they close then
	// belongs to somebody else.
	var closing sync.Mutex
	over := false
	closeBoth := func() {
		closing.Lock()
		defer closing.Unlock()
		if !over {
			client.Close()
			origin.Close()
		}
	}
	defer func() {
		closing.Lock()
		defer closing.Unlock()
		over = true
		client.Close()
	}()
	idle := f.codec.config.Timeouts.Idle.Std()
	timer := time.AfterFunc(idle, closeBoth)
	defer timer.Stop()
	defer context.AfterFunc(ctx, closeBoth)()

	r := &relay{idle: idle, moved: func() { timer.Reset(idle) }, fail: closeBoth, metrics: f.worker.metrics}
	var up sync.WaitGroup
	up.Go(func() { r.pump(origin, client) })
	x.Sent = r.pump(client, origin)
	up.Wait()
}

// relay moves bytes between the ends of a tunnel.
type relay struct {
	idle    time.Duration
	moved   func() // called when bytes were
	fail    func() // called when one end fails
	metrics *metrics
}

// pump moves from one end to the other until the first is done, and then says
// so to the second. It returns how many bytes it moved.
func (r *relay) pump(to, from exchange.Tunnel) (n int64) {
	var piece *buffers.Buffer // while the kernel cannot do it
	defer func() { buffers.Give(piece) }()
	for {
		var m int64
		var err error
		how := r.metrics.spliced
		if a, b := socket(to), socket(from); a != nil && b != nil {
			buffers.Give(piece)
			piece = nil
			m, err = splice(a, b, r.idle)
		} else {
			if piece == nil {
				piece = buffers.Take(buffers.PieceSize)
			}
			how = r.metrics.copied
			m, err = copyPiece(to, from, piece.Bytes)
		}
		if m > 0 {
			how.Add(float64(m))
			r.moved()
			n += m
		}
		if err != nil {
			if err != io.EOF || wasReset(from) || to.CloseWrite() != nil {
				r.fail()
			}
			return n
		}
	}
}

// wasReset reports whether an end that looked orderly was none.
func wasReset(t exchange.Tunnel) bool {
	s, ok := t.(exchange.Socket)
	return ok && s.Reset()
}

// copyPiece copies what one Read gives.
func copyPiece(to io.Writer, from io.Reader, piece []byte) (int64, error) {
	n, err := from.Read(piece)
	if n > 0 {
		if _, err := to.Write(piece[:n]); err != nil {
			return int64(n), err
		}
	}
	return int64(n), err
}

// splice lets the kernel copy for a part of the idle timeout. It returns io.EOF
// at the end.
func splice(to, from *net.TCPConn, idle time.Duration) (int64, error) {
	from.SetReadDeadline(time.Now().Add(idle / tunnelLooks))
	n, err := to.ReadFrom(from)
	switch {
	case err == nil:
		return n, io.EOF
	case isTimeout(err):
		return n, nil
	}
	return n, err
}

// socket returns the TCP connection that a tunnel consists of; nil if there is
// more to it.
func socket(t exchange.Tunnel) *net.TCPConn {
	if s, ok := t.(exchange.Socket); ok {
		return s.TCP()
	}
	return nil
}

// connector is the way to backends for the method CONNECT (RFC 9110, 9.3.6): a
// connection that no HTTP is spoken on.
type connector struct{ pool *origin.Pool }

// RoundTrip implements [back].
func (c connector) RoundTrip(ctx context.Context, to netip.AddrPort, _ *exchange.Request, _ func(int, exchange.Fields)) (*exchange.Response, error) {
	conn, err := c.pool.Dial(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", exchange.ErrConnect, err)
	}
	return &exchange.Response{Status: 200, Length: -1, Tunnel: http1.NewTunnel(conn)}, nil
}
