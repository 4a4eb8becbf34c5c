package vrrp

import (
	"fmt"
	"net/netip"
	"time"
)

// State is a state of RFC 9568 section 6.4.
type State string

// The states. A router that may not take part in the election, because its node
// does not serve or its interface is down, is in Initialize.
const (
	Initialize State = "initialize"
	Backup     State = "backup"
	Active     State = "active"
)

// States lists every state.
func States() []State { return []State{Initialize, Backup, Active} }

// action is what the machine asks for. Actions are carried out in order.
type action uint8

const (
	acquire   action = iota // put the addresses on the interface and announce them
	release                 // take the addresses off
	advertise               // send an advertisement of the machine's priority
	resign                  // send an advertisement of priority 0
)

// machine is the election of RFC 9568 section 6.4. It does no I/O and reads no
// clock: every call is given the time and returns the actions that follow.
//
// The time may come late, but packets that arrived before it must be passed to
// receive before tick is called.
type machine struct {
	interval     time.Duration // Advertisement_Interval
	preempt      bool
	preemptDelay time.Duration
	priority     uint8      // in effect
	address      netip.Addr // the primary address, the sender of advertisements

	state    State
	reason   string        // why it is in state
	learned  time.Duration // Active_Adver_Interval
	deadline time.Time     // Active_Down_Timer or Adver_Timer; zero in Initialize
	// lowSince is since when Active Routers of lower priority are heard and no
	// other; zero if the latest advertisement was another's.
	lowSince time.Time
	sent     time.Time // the latest advertisement of this stay in Active
}

func newMachine(c Config) *machine {
	return &machine{
		interval: c.Interval, preempt: c.Preempt, preemptDelay: c.PreemptDelay,
		priority: c.Priority, state: Initialize, reason: "starting", learned: c.Interval,
	}
}

// skew is Skew_Time (RFC 9568 section 6.1).
func skew(priority uint8, interval time.Duration) time.Duration {
	return time.Duration(256-int(priority)) * interval / 256
}

// activeDown is Active_Down_Interval (RFC 9568 section 6.1).
func activeDown(priority uint8, interval time.Duration) time.Duration {
	return 3*interval + skew(priority, interval)
}

// start is the Startup event (RFC 9568 section 6.4.1). address is the primary
// address. It must only be called in Initialize.
func (m *machine) start(now time.Time, address netip.Addr) []action {
	m.address, m.learned, m.lowSince = address, m.interval, time.Time{}
	if m.priority == PriorityOwner {
		return m.takeOver(now, "address owner")
	}
	m.back(now, "waiting for an Active Router")
	return nil
}

// stop is the Shutdown event (RFC 9568 sections 6.4.2 and 6.4.3). An Active
// Router first lets go of the addresses, so that no two routers have them.
func (m *machine) stop(reason string) []action {
	was := m.state
	m.state, m.reason, m.deadline = Initialize, reason, time.Time{}
	if was == Active {
		return []action{release, resign}
	}
	return nil
}

// prioritize sets the priority. An Active Router tells the others at once.
func (m *machine) prioritize(now time.Time, priority uint8) []action {
	if priority == m.priority {
		return nil
	}
	m.priority = priority
	switch {
	case m.state == Active:
		return m.advertise(now)
	case m.state == Backup && priority == PriorityOwner:
		return m.takeOver(now, "address owner")
	}
	return nil
}

// tick tells the time. It must be called when deadline has come.
func (m *machine) tick(now time.Time) []action {
	if m.deadline.IsZero() || now.Before(m.deadline) {
		return nil
	}
	if m.state == Active {
		return m.advertise(now)
	}
	return m.takeOver(now, "no Active Router of equal or higher priority is heard")
}

// receive takes a valid advertisement of another router.
func (m *machine) receive(now time.Time, a advertisement, from netip.Addr) []action {
	switch m.state {
	case Backup:
		return m.receiveBackup(now, a)
	case Active:
		return m.receiveActive(now, a, from)
	}
	return nil
}

// receiveBackup follows RFC 9568 section 6.4.2.
func (m *machine) receiveBackup(now time.Time, a advertisement) []action {
	switch {
	case a.priority == 0:
		m.deadline = now.Add(skew(m.priority, m.learned))
		return nil
	case a.priority >= m.priority:
		m.lowSince = time.Time{}
	case m.lowSince.IsZero():
		m.lowSince = now
	}
	if !m.preempts(now, a.priority) {
		m.learned = a.interval
		m.deadline = now.Add(activeDown(m.priority, m.learned))
	}
	return nil
}

// preempts reports whether an Active Router of the given priority is ignored,
// so that the Active_Down_Timer runs out.
func (m *machine) preempts(now time.Time, priority uint8) bool {
	switch {
	case priority >= m.priority:
		return false
	case m.priority == PriorityOwner:
		return true
	}
	return m.preempt && now.Sub(m.lowSince) >= m.preemptDelay
}

// receiveActive follows RFC 9568 section 6.4.3. Where it has an Active Router
// assert itself against one of lower priority, that one may be right: if nothing
// was sent for the Active_Down_Interval of the other, this router was not
// running, and the other took over as it should. Then it is preempted by the
// rules of a Backup Router, or not at all.
func (m *machine) receiveActive(now time.Time, a advertisement, from netip.Addr) []action {
	wins := a.priority > m.priority || a.priority == m.priority && from.Compare(m.address) > 0
	overslept := now.Sub(m.sent) >= activeDown(a.priority, m.interval) && m.priority != PriorityOwner
	switch {
	case a.priority == 0:
		actions := m.advertise(now)
		m.deadline = now.Add(m.interval)
		return actions
	case wins:
		m.learned = a.interval
		m.back(now, fmt.Sprintf("%s is Active with priority %d", from, a.priority))
	case overslept:
		m.learned = a.interval
		m.back(now, fmt.Sprintf("%s took over while this router did not run", from))
		m.lowSince = now
	default:
		m.sent = now
		return []action{advertise}
	}
	return []action{release}
}

// advertise sends an advertisement and sets the Adver_Timer, one interval after
// it was due so that the pace holds, unless that has passed too.
func (m *machine) advertise(now time.Time) []action {
	m.sent = now
	if due := m.deadline.Add(m.interval); !now.Before(m.deadline) && due.After(now) {
		m.deadline = due
	} else {
		m.deadline = now.Add(m.interval)
	}
	return []action{advertise}
}

// takeOver makes the router Active.
func (m *machine) takeOver(now time.Time, reason string) []action {
	m.state, m.reason = Active, reason
	m.sent, m.deadline = now, now.Add(m.interval)
	return []action{advertise, acquire}
}

// back makes the router a Backup Router.
func (m *machine) back(now time.Time, reason string) {
	m.state, m.reason, m.lowSince = Backup, reason, time.Time{}
	m.deadline = now.Add(activeDown(m.priority, m.learned))
}
