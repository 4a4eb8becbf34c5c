package termination

import (
	"crypto/tls"
	"sync/atomic"
)

// Outcome is what became of a session ticket. It is a closed set, fit for a
// metric label.
type Outcome int

// The outcomes. The first two are of tickets given to clients, the others of
// tickets that clients offered; a TLS 1.3 client may offer several at once.
const (
	Issued     Outcome = iota // sealed with the current key
	Blank                     // opens nowhere: there was no key, or the session was too big
	Opened                    // good; crypto/tls may still decline the session
	UnknownKey                // its key was erased, or has not arrived
	Expired                   // older than a day
	Invalid                   // damaged, forged, or of another trust domain or server name
)

var outcomes = [...]string{
	Issued: "issued", Blank: "blank", Opened: "opened",
	UnknownKey: "unknown_key", Expired: "expired", Invalid: "invalid",
}

// Outcomes lists every outcome.
func Outcomes() []Outcome {
	all := make([]Outcome, len(outcomes))
	for i := range all {
		all[i] = Outcome(i)
	}
	return all
}

// String returns the outcome in lower case, with underscores.
func (o Outcome) String() string { return outcomes[o] }

// Counters count handshakes and session tickets, from zero upwards. The zero
// value is ready for use. All methods may be called by several goroutines; the
// counts are not a snapshot of one instant.
type Counters struct {
	full, resumed [2]atomic.Uint64 // TLS 1.2, TLS 1.3
	tickets       [len(outcomes)]atomic.Uint64
}

// Handshake counts a completed handshake. Whoever drives handshakes calls it,
// because crypto/tls tells nobody else: its callbacks run before the client has
// proven anything, or has refused the certificate.
func (c *Counters) Handshake(state tls.ConnectionState) {
	if counter := c.handshake(state.Version, state.DidResume); counter != nil {
		counter.Add(1)
	}
}

// Handshakes returns how many handshakes of a version were completed, in full
// or by resuming a session.
func (c *Counters) Handshakes(version uint16, resumed bool) uint64 {
	if counter := c.handshake(version, resumed); counter != nil {
		return counter.Load()
	}
	return 0
}

// Tickets returns how many tickets had an outcome. The [Terminator] counts them
// itself.
func (c *Counters) Tickets(o Outcome) uint64 { return c.tickets[o].Load() }

func (c *Counters) ticket(o Outcome) { c.tickets[o].Add(1) }

// handshake returns a counter, nil for a version that nobody speaks.
func (c *Counters) handshake(version uint16, resumed bool) *atomic.Uint64 {
	counters := &c.full
	if resumed {
		counters = &c.resumed
	}
	switch version {
	case tls.VersionTLS12:
		return &counters[0]
	case tls.VersionTLS13:
		return &counters[1]
	}
	return nil
}
