package http1

import (
	"net"
	"time"
)

// alarm sets one of a connection's deadlines, and saves most of the calls:
// changing a deadline takes a lock of the runtime.
//
// It is not safe for concurrent use. Whoever sets the deadline behind its back
// must not use the alarm again, or call forget first.
type alarm struct {
	conn  net.Conn
	write bool      // the deadline of Write, else of Read
	at    time.Time // where it stands; zero if unknown or none
}

// arm lets calls that begin now wait for span at least, and for an eighth more
// at most.
func (a *alarm) arm(now time.Time, span time.Duration) {
	if left := a.at.Sub(now); left >= span && left <= span+span/8 {
		return
	}
	a.set(now.Add(span + span/8))
}

// set sets the deadline; a zero time means none. Its error is left to the next
// Read or Write to meet.
func (a *alarm) set(at time.Time) {
	a.at = at
	if a.write {
		a.conn.SetWriteDeadline(at)
	} else {
		a.conn.SetReadDeadline(at)
	}
}

// forget says that the deadline is not where it was set to.
func (a *alarm) forget() { a.at = time.Time{} }

// past is a deadline that has passed: it ends what waits.
var past = time.Unix(1, 0)
