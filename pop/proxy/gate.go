package proxy

import (
	"context"
	"sync/atomic"
	"time"

	"anyedge/pop/proxy/buffers"
)

// gate holds new requests back while the worker's ceiling of buffer memory is
// reached. Those under way go on, for they are what gives memory back.
type gate struct {
	limit atomic.Int64 // bytes; 0 is none
	tight atomic.Bool  // the limit was reached when somebody looked last
}

const (
	// gateStride is how many requests pass between two looks at the memory.
	gateStride = 32
	// gateWait bounds a request's wait at the gate.
	gateWait = time.Second
	// gatePause is the pace at which those who wait look again.
	gatePause = 5 * time.Millisecond
)

// pass lets the nth request in, and returns false if it has waited in vain.
func (g *gate) pass(ctx context.Context, n uint64) bool {
	if n%gateStride != 0 && !g.tight.Load() || g.look() {
		return true
	}
	deadline := time.Now().Add(gateWait)
	ticker := time.NewTicker(gatePause)
	defer ticker.Stop()
	for now := range ticker.C {
		if g.look() {
			return true
		}
		if now.After(deadline) || ctx.Err() != nil {
			return false
		}
	}
	return false
}

// look reports whether there is room.
func (g *gate) look() bool {
	limit := g.limit.Load()
	room := limit == 0 || buffers.Lent() < limit
	g.tight.Store(!room)
	return room
}
