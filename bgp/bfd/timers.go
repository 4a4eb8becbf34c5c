package bfd

import (
	"time"
)

// slowInterval is the least interval while a session is not Up (RFC 5880
// section 6.8.3).
const slowInterval = time.Second

// timers is the part of a session that decides when to send and when to give
// up.
type timers struct {
	// What packets say: bfd.DesiredMinTxInterval, bfd.RequiredMinRxInterval.
	desiredTx, requiredRx time.Duration
	// What holds: behind the former while a Poll Sequence asks for it.
	activeTx, activeRx time.Duration

	poll  pollState
	final bool // a Poll of the neighbor is to be answered

	sent     packet // the last one, without Poll and Final
	lastTx   time.Time
	nextTx   time.Time     // of the next periodic packet
	spacing  time.Duration // the interval that nextTx was drawn from
	farewell farewell
	// lastDetection is the Detection Time as of the last authentic packet.
	lastDetection time.Duration
}

// pollState is how far a Poll Sequence of ours is.
type pollState uint8

const (
	pollIdle    pollState = iota
	pollWanted            // to be sent with the next packet
	pollSent              // a Final ends it
	pollSettled           // ended; a packet without Final must come before another
)

// farewell keeps up the interval of a session that was Up when it was disabled.
// The neighbor has not heard of the slower one, and were the one packet lost
// that tells it, it would see a failure. It ends when the neighbor says Down,
// or when it must have given up.
type farewell struct {
	interval time.Duration // zero: none
	until    time.Time
}

// adopt brings the advertised intervals to those the configuration and the
// state ask for, under the rules of section 6.8.3.
func (s *session) adopt() {
	defer s.retime()
	tx, rx := s.cfg.TransmitInterval, s.cfg.ReceiveInterval
	if s.state != Up {
		tx = max(tx, slowInterval)
		s.activeTx, s.activeRx = tx, rx
	}
	if tx == s.desiredTx && rx == s.requiredRx {
		return
	}
	if s.state == Up && s.poll != pollIdle {
		return // a Final could not tell which of two changes it confirms
	}
	s.desiredTx, s.requiredRx = tx, rx
	s.activeTx = min(s.activeTx, tx)
	s.activeRx = max(s.activeRx, rx)
	if s.remoteDiscr != 0 {
		s.poll = pollWanted
	}
}

// finished takes the Final bit of a received packet.
func (s *session) finished(final bool) {
	switch {
	case final && s.poll == pollSent:
		s.poll = pollSettled
		s.activeTx, s.activeRx = s.desiredTx, s.requiredRx
	case !final && s.poll == pollSettled:
		s.poll = pollIdle
	}
}

// interval is the time between periodic packets before jitter (section 6.8.7).
func (s *session) interval() time.Duration {
	if s.farewell.interval != 0 {
		return s.farewell.interval
	}
	return max(s.activeTx, s.remoteMinRx)
}

// detection is the Detection Time in asynchronous mode (section 6.8.4).
func (s *session) detection() time.Duration {
	return time.Duration(s.remote.multiplier) * max(s.activeRx, s.remote.desiredTx)
}

// retime moves the next periodic packet when the interval has changed. A
// shorter one holds from the previous packet on (section 6.8.3).
func (s *session) retime() {
	if interval := s.interval(); interval != s.spacing {
		s.spacing = interval
		s.nextTx = s.lastTx.Add(s.jittered(interval))
	}
}

// jittered takes off up to a quarter at random, and with a multiplier of 1 at
// least a tenth (section 6.8.7).
func (s *session) jittered(interval time.Duration) time.Duration {
	span := interval / 4
	least := interval - span
	if s.cfg.Multiplier == 1 {
		span = interval * 15 / 100
	}
	return least + time.Duration(s.rng.Int64N(int64(span)+1))
}

// periodic reports whether the neighbor takes periodic packets at all.
func (s *session) periodic() bool {
	if s.remoteMinRx == 0 {
		return false
	}
	demand := s.remoteDemand && s.state == Up && s.remoteState == Up
	return !demand || s.poll == pollWanted || s.poll == pollSent
}

// next appends the packet that is to be sent now to b, or returns nil. It must
// be called until then.
func (s *session) next(now time.Time, b []byte) []byte {
	p := packet{
		diag:       s.diag,
		state:      s.state,
		multiplier: s.cfg.Multiplier,
		my:         s.local,
		your:       s.remoteDiscr,
		desiredTx:  s.desiredTx,
		requiredRx: s.requiredRx,
	}
	// The neighbor may have to wait long for a periodic packet, so news goes
	// out between two of them (section 6.8.7).
	news := p != s.sent
	final := s.final
	if !final && !news && (now.Before(s.nextTx) || !s.periodic()) {
		return nil
	}
	s.sent = p
	if final {
		s.final = false
		p.flags = flagFinal
	} else {
		if s.poll == pollWanted {
			s.poll = pollSent
		}
		if s.poll == pollSent {
			p.flags = flagPoll
		}
		s.lastTx = now
		s.spacing = s.interval()
		s.nextTx = now.Add(s.jittered(s.spacing))
	}
	b = p.append(b)
	if s.auth.kind != 0 {
		b = s.auth.sign(b)
	}
	return b
}

// deadline is when advance or next has something to do if no packet comes
// before; zero for never.
func (s *session) deadline() time.Time {
	var at time.Time
	if s.periodic() {
		at = s.nextTx
	}
	if s.remoteDiscr != 0 {
		at = sooner(at, s.heard.Add(s.detection()))
	}
	if s.farewell.interval != 0 {
		at = sooner(at, s.farewell.until)
	}
	return at
}

// sooner returns the earlier of two deadlines, of which zero is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
