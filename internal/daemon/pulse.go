package daemon

import (
	"sync/atomic"
	"time"
)

// A Pulse tells whether a loop still turns, for a Notifier's Watchdog. Its methods
// may be called by any goroutine.
type Pulse struct {
	last atomic.Pointer[time.Time]
}

// Beat says that the loop turns.
func (p *Pulse) Beat() {
	now := time.Now()
	p.last.Store(&now)
}

// Within reports whether the last Beat is no longer ago than limit. A loop that has
// not begun is as good as one that turns.
func (p *Pulse) Within(limit time.Duration) bool {
	last := p.last.Load()
	return last == nil || time.Since(*last) <= limit
}
