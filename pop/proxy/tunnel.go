package proxy

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"anyedge/pop/proxy/exchange"
)

const (
	// tunnelPiece is how much a tunnel copies at once, in bytes.
	tunnelPiece = 16 << 10
	// tunnelLooks is how often per idle timeout it is asked whether the kernel
	// moved anything.
	tunnelLooks = 4
)

// tunnel switches the client's connection to what the origin has accepted, and
// copies both ways until both ends are done, nothing moved in either direction
// for the listener's idle timeout, or ctx ends.
func (f *forward) tunnel(ctx context.Context, res *exchange.Response) {
	x, origin := f.x, res.Tunnel
	defer origin.Close()
	x.Status = res.Status
	client, err := x.Client.Upgrade(res.Fields)
	if err != nil {
		x.Outcome = exchange.OutcomeClientGone
		return
	}
	defer client.Close()
	x.Outcome = exchange.OutcomeUpgraded

	closeBoth := func() {
		client.Close()
		origin.Close()
	}
	idle := f.codec.config.Timeouts.Idle.Std()
	timer := time.AfterFunc(idle, closeBoth)
	defer timer.Stop()
	defer context.AfterFunc(ctx, closeBoth)()

	moved := func() { timer.Reset(idle) }
	var up sync.WaitGroup
	up.Go(func() { pump(origin, client, idle, moved, closeBoth) })
	x.Sent = pump(client, origin, idle, moved, closeBoth)
	up.Wait()
}

// pump copies from one end to the other until the first is done, and then says
// so to the second; if one of them fails, both are closed.
func pump(to, from exchange.Tunnel, idle time.Duration, moved, fail func()) (n int64) {
	var piece []byte
	for {
		var m int64
		var err error
		if a, b := socket(to), socket(from); a != nil && b != nil {
			m, err = splice(a, b, idle)
		} else {
			if piece == nil {
				piece = make([]byte, tunnelPiece)
			}
			m, err = copyPiece(to, from, piece)
		}
		if m > 0 {
			moved()
			n += m
		}
		if err != nil {
			if err != io.EOF || to.CloseWrite() != nil {
				fail()
			}
			return n
		}
	}
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
