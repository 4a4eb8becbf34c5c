package proxy

import (
	"context"
	"io"
	"sync"
	"time"

	"anyedge/pop/proxy/exchange"
)

// tunnelPiece is how much a tunnel copies at once, in bytes.
const tunnelPiece = 16 << 10

// tunnel switches the client's connection to what the origin has accepted, and
// copies both ways until both ends are done, nothing moved in either direction
// for the listener's idle timeout, or ctx ends.
func (f *forward) tunnel(ctx context.Context, res *exchange.Response) {
	x := f.x
	defer res.Tunnel.Close()
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
		res.Tunnel.Close()
	}
	idle := f.codec.config.Timeouts.Idle.Std()
	timer := time.AfterFunc(idle, closeBoth)
	defer timer.Stop()
	defer context.AfterFunc(ctx, closeBoth)()

	moved := func() { timer.Reset(idle) }
	var up sync.WaitGroup
	up.Go(func() { pump(res.Tunnel, client, moved, closeBoth) })
	x.Sent = pump(client, res.Tunnel, moved, closeBoth)
	up.Wait()
}

// pump copies from one end to the other until the first is done, and then says
// so to the second; if one of them fails, both are closed.
func pump(to, from exchange.Tunnel, moved, fail func()) (n int64) {
	piece := make([]byte, tunnelPiece)
	for {
		read, err := from.Read(piece)
		if read > 0 {
			moved()
			if _, err := to.Write(piece[:read]); err != nil {
				fail()
				return n
			}
			n += int64(read)
		}
		if err != nil {
			if err != io.EOF || to.CloseWrite() != nil {
				fail()
			}
			return n
		}
	}
}
