package bfd

import (
	"math/rand/v2"
	"time"
)

// session is the state machine of RFC 5880 section 6.8 for one neighbor, in
// the active role. It does no I/O and reads no clock.
//
// Its owner calls receive for each packet of the neighbor, advance when a
// deadline has passed, and then next until that has nothing more to send.
type session struct {
	cfg  Peer
	auth authenticator
	rng  *rand.Rand

	state State
	diag  Diagnostic
	local uint32 // discriminator

	// The neighbor, as its last packet says. Zero discriminator: unknown.
	remote       packet
	remoteDiscr  uint32
	remoteState  State
	remoteMinRx  time.Duration // bfd.RemoteMinRxInterval
	remoteDemand bool
	heard        time.Time // of the last packet that was authentic

	timers

	flaps    uint64 // times Up was left
	failures uint64 // of these, those nobody asked for
	margin   time.Duration
}

// newSession returns a session that has something to send at once. The
// discriminator must be unique and, like seq, random.
func newSession(cfg Peer, discriminator, seq uint32, rng *rand.Rand, now time.Time) *session {
	s := &session{cfg: cfg, rng: rng, local: discriminator, state: Down, margin: noMargin}
	s.auth.sent = seq
	s.auth.configure(cfg.Auth)
	s.forget()
	s.lastTx = now
	s.adopt()
	if cfg.AdminDown {
		s.disable(now)
	}
	return s
}

// noMargin is the margin of a session that has had no packet to measure.
const noMargin = time.Duration(-1)

// configure changes what may change in a session that goes on: all but the
// addresses.
func (s *session) configure(cfg Peer, now time.Time) {
	s.cfg = cfg
	s.auth.configure(cfg.Auth)
	switch {
	case cfg.AdminDown && s.state != AdminDown:
		s.disable(now)
	case !cfg.AdminDown && s.state == AdminDown:
		s.enter(Down, NoDiagnostic)
	default:
		s.adopt()
	}
}

// disable takes the session down on an operator's behalf (section 6.8.16).
func (s *session) disable(now time.Time) {
	if s.state == AdminDown {
		return
	}
	interval := s.interval()
	if s.state == Up {
		s.farewell = farewell{interval: interval, until: now.Add(time.Duration(s.cfg.Multiplier) * interval)}
	}
	s.enter(AdminDown, AdminReason)
}

// dismissed reports whether a disabled session may be forgotten: the neighbor
// knows, or has had a Detection Time to learn it.
func (s *session) dismissed() bool {
	return s.state == AdminDown && s.sent.state == AdminDown && s.farewell.interval == 0
}

// receive takes a packet that decode has kept and that belongs to this
// session; raw is the same packet in bytes. It goes on with section 6.8.6 where
// demultiplexing ends.
func (s *session) receive(now time.Time, p packet, raw []byte) drop {
	if p.has(flagAuth) != (s.auth.kind != 0) {
		return badAuth
	}
	if s.auth.kind != 0 {
		// Section 6.8.1, bfd.AuthSeqKnown.
		if now.Sub(s.heard) >= 2*s.lastDetection {
			s.auth.known = false
		}
		if !s.auth.verify(raw, p.multiplier) {
			return badAuth
		}
	}
	if s.state == Up {
		s.measure(s.heard.Add(s.detection()).Sub(now))
	}
	s.remote = p
	s.remoteDiscr, s.remoteState = p.my, p.state
	s.remoteDemand, s.remoteMinRx = p.has(flagDemand), p.requiredRx
	s.heard = now
	s.finished(p.has(flagFinal))
	s.adopt()
	s.lastDetection = s.detection()
	if s.state == AdminDown {
		if p.state == Down || p.state == AdminDown {
			s.farewell = farewell{} // it knows
			s.retime()
		}
		return heldDown
	}
	switch {
	case p.state == AdminDown:
		if s.state != Down {
			s.enter(Down, SignaledDown)
		}
	case s.state == Down && p.state == Down:
		s.enter(Init, NoDiagnostic)
	case s.state == Down && p.state == Init,
		s.state == Init && (p.state == Init || p.state == Up):
		s.enter(Up, NoDiagnostic)
	case s.state == Up && p.state == Down:
		s.enter(Down, SignaledDown)
	}
	s.final = s.final || p.has(flagPoll)
	return kept
}

// advance does what is due by the passing of time, except sending.
func (s *session) advance(now time.Time) {
	if s.farewell.interval != 0 && !now.Before(s.farewell.until) {
		s.farewell = farewell{}
		s.retime()
	}
	if s.remoteDiscr == 0 || now.Before(s.heard.Add(s.detection())) {
		return
	}
	// Section 6.8.1, bfd.RemoteDiscr, and section 6.8.4.
	s.forget()
	if s.state == Init || s.state == Up {
		s.enter(Down, TimeExpired)
	} else {
		s.retime()
	}
}

// forget makes the neighbor an unknown one, as at the start.
func (s *session) forget() {
	s.remote = packet{}
	s.remoteDiscr, s.remoteState = 0, Down
	s.remoteMinRx, s.remoteDemand = time.Microsecond, false
	s.poll, s.final = pollIdle, false
}

// enter changes the state.
func (s *session) enter(to State, diag Diagnostic) {
	if s.state == Up {
		s.flaps++
		if to != AdminDown && s.remoteState != AdminDown {
			s.failures++
		}
	}
	s.state, s.diag = to, diag
	s.margin = noMargin
	// A Poll Sequence of another state has nothing left to confirm: out of Up
	// all intervals hold at once, and on the way to Up they only shrink.
	s.poll = pollIdle
	s.adopt()
}

// measure notes how long before the session would have been declared Down a
// packet came.
func (s *session) measure(left time.Duration) {
	if left = max(left, 0); s.margin == noMargin || left < s.margin {
		s.margin = left
	}
}
