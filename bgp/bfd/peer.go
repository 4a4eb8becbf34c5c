package bfd

import (
	"time"
)

const (
	// reportInterval is between reports that bring nothing but counters.
	reportInterval = time.Second
	// backlogInterval is between attempts to report to a Manager that does
	// not read.
	backlogInterval = 20 * time.Millisecond
)

// peer is a session as the engine runs it.
type peer struct {
	cfg     Peer
	session *session
	sender  sender
	source  source
	leaving bool // not in the plan any more

	packetsIn, packetsOut, sendErrors uint64
	drops                             dropCounts

	state    State // as last seen, since
	since    time.Time
	reported vitals
	reportAt time.Time
}

// dropCounts counts dropped packets by reason.
type dropCounts [drops]uint64

func (c *dropCounts) byName() map[string]uint64 {
	var m map[string]uint64
	for why, n := range c {
		if n > 0 {
			if m == nil {
				m = make(map[string]uint64)
			}
			m[dropNames[why]] = n
		}
	}
	return m
}

// strays counts packets of no peer.
type strays struct {
	drops    dropCounts
	kernel   uint64
	reported dropCounts
	reportAt time.Time
}

// vitals is the part of a Status that is worth a report of its own.
type vitals struct {
	state                     State
	diag                      Diagnostic
	remoteState               State
	remoteDiscr               uint32
	flaps                     uint64
	transmit, receive, detect time.Duration
	err                       error
}

func (p *peer) vitals() vitals {
	s := p.session
	v := vitals{
		state: s.state, diag: s.diag, remoteState: s.remoteState, remoteDiscr: s.remoteDiscr,
		flaps: s.flaps, transmit: s.interval(), err: p.sender.err,
	}
	if s.remoteDiscr != 0 {
		v.receive, v.detect = max(s.activeRx, s.remote.desiredTx), s.detection()
	}
	return v
}

func (p *peer) configure(cfg *Peer, now time.Time) {
	p.cfg = *cfg
	p.session.configure(*cfg, now)
}

// status is what a report says, with v the current vitals.
func (p *peer) status(v vitals, failure error) *Status {
	s := p.session
	st := &Status{
		Peer:                p.cfg.Address,
		LocalAddress:        p.cfg.LocalAddress,
		State:               v.state,
		Since:               p.since,
		Diagnostic:          v.diag,
		RemoteState:         v.remoteState,
		RemoteDiagnostic:    s.remote.diag,
		LocalDiscriminator:  s.local,
		RemoteDiscriminator: v.remoteDiscr,
		TransmitInterval:    v.transmit,
		ReceiveInterval:     v.receive,
		DetectionTime:       v.detect,
		Multiplier:          p.cfg.Multiplier,
		RemoteMultiplier:    s.remote.multiplier,
		RemoteIndependent:   s.remote.has(flagIndependent),
		RemoteDemand:        s.remoteDemand,
		Flaps:               s.flaps,
		Failures:            s.failures,
		PacketsIn:           p.packetsIn,
		PacketsOut:          p.packetsOut,
		SendErrors:          p.sendErrors,
		Drops:               p.drops.byName(),
		DetectMargin:        s.margin,
	}
	if failure != nil {
		st.LastError = failure.Error()
	}
	return st
}

// reportAll tells the Manager what it does not know yet.
func (e *engine) reportAll(now time.Time) {
	if now.Before(e.backlog) {
		return
	}
	e.backlog = time.Time{}
	for _, p := range e.peers {
		if p.leaving {
			continue
		}
		if p.state != p.session.state {
			p.state, p.since = p.session.state, now
		}
		v := p.vitals()
		if v.err == nil {
			v.err = e.listenError(p)
		}
		if v == p.reported && now.Before(p.reportAt) {
			continue
		}
		if !e.control.send(&report{Session: p.status(v, v.err)}) {
			e.backlog = now.Add(backlogInterval)
			return
		}
		p.reported, p.reportAt = v, now.Add(reportInterval)
		p.session.margin = noMargin
	}
	e.reportStrays(now)
}

func (e *engine) reportStrays(now time.Time) {
	if now.Before(e.strays.reportAt) {
		return
	}
	e.strays.reportAt = now.Add(reportInterval)
	var dropped uint64
	for _, l := range e.listeners {
		if l.fd >= 0 {
			dropped += uint64(l.drops())
		}
	}
	if dropped == 0 && e.strays.drops == e.strays.reported {
		return
	}
	e.strays.kernel += dropped
	e.strays.reported = e.strays.drops
	e.control.send(&report{Strays: &stray{Drops: e.strays.drops.byName(), Kernel: e.strays.kernel}})
}

// listenError is why no packet of p can be received.
func (e *engine) listenError(p *peer) error {
	for _, l := range e.listeners {
		if l.err != nil && l.addr.Is4() == p.cfg.Address.Is4() && (l.addr.IsUnspecified() || l.addr == p.cfg.LocalAddress) {
			return l.err
		}
	}
	return nil
}
