package bfd

import (
	"crypto/sha1"
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

var epoch = time.Unix(1e9, 0)

// TestStates is the state machine of RFC 5880 section 6.8.6.
func TestStates(t *testing.T) {
	tests := []struct {
		from, hears, to State
		diag            Diagnostic
		why             drop
	}{
		{Down, AdminDown, Down, NoDiagnostic, kept},
		{Down, Down, Init, NoDiagnostic, kept},
		{Down, Init, Up, NoDiagnostic, kept},
		{Down, Up, Down, NoDiagnostic, kept},
		{Init, AdminDown, Down, SignaledDown, kept},
		{Init, Down, Init, NoDiagnostic, kept},
		{Init, Init, Up, NoDiagnostic, kept},
		{Init, Up, Up, NoDiagnostic, kept},
		{Up, AdminDown, Down, SignaledDown, kept},
		{Up, Down, Down, SignaledDown, kept},
		{Up, Init, Up, NoDiagnostic, kept},
		{Up, Up, Up, NoDiagnostic, kept},
		{AdminDown, AdminDown, AdminDown, AdminReason, heldDown},
		{AdminDown, Down, AdminDown, AdminReason, heldDown},
		{AdminDown, Init, AdminDown, AdminReason, heldDown},
		{AdminDown, Up, AdminDown, AdminReason, heldDown},
	}
	for _, test := range tests {
		t.Run(test.from.String()+"_hears_"+test.hears.String(), func(t *testing.T) {
			s := sessionIn(t, test.from, Auth{}, epoch)
			why := s.receive(epoch, neighborPacket(test.hears), nil)
			if s.state != test.to || s.diag != test.diag || why != test.why {
				t.Errorf("%v/%v %q, want %v/%v %q", s.state, s.diag, dropNames[why], test.to, test.diag, dropNames[test.why])
			}
			sent := drain(s, epoch)
			if changed := test.from != test.to; changed && (len(sent) != 1 || sent[0].state != test.to || sent[0].diag != test.diag) {
				t.Errorf("sent %+v, want one packet that says %v", sent, test.to)
			}
			if test.from == Up && test.to == Down {
				if asked := test.hears == AdminDown; asked != (s.failures == 0) || s.flaps != 1 {
					t.Errorf("%d flaps and %d failures", s.flaps, s.failures)
				}
			}
		})
	}
}

// TestDetection is section 6.8.4: the neighbor's multiplier, and the slower of
// what it sends and what is taken here.
func TestDetection(t *testing.T) {
	tests := []struct {
		name       string
		rx, tx     time.Duration // ours to take, theirs to send
		multiplier uint8
		want       time.Duration
	}{
		{"theirs is slower", 50 * time.Millisecond, 80 * time.Millisecond, 3, 240 * time.Millisecond},
		{"ours is slower", 100 * time.Millisecond, 80 * time.Millisecond, 4, 400 * time.Millisecond},
		{"one packet", 50 * time.Millisecond, 10 * time.Millisecond, 1, 50 * time.Millisecond},
		{"the longest", 50 * time.Millisecond, 4294967295 * time.Microsecond, 255, 255 * 4294967295 * time.Microsecond},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := sessionIn(t, Up, Auth{}, epoch)
			s.cfg.ReceiveInterval = test.rx
			s.activeRx, s.requiredRx = test.rx, test.rx
			p := neighborPacket(Up)
			p.desiredTx, p.multiplier = test.tx, test.multiplier
			s.receive(epoch, p, nil)
			s.advance(epoch.Add(test.want - 1))
			if s.state != Up {
				t.Fatalf("%v too early", s.state)
			}
			s.advance(epoch.Add(test.want))
			if s.state != Down || s.diag != TimeExpired || s.remoteDiscr != 0 || s.failures != 1 {
				t.Errorf("%v/%v, discriminator %d, %d failures", s.state, s.diag, s.remoteDiscr, s.failures)
			}
			sent := drain(s, epoch.Add(test.want))
			if len(sent) != 1 || sent[0].your != 0 || sent[0].desiredTx < slowInterval || sent[0].has(flagPoll) {
				t.Errorf("sent %+v", sent)
			}
		})
	}
}

// TestPoll follows changes of timers through their Poll Sequences (section
// 6.8.3).
func TestPoll(t *testing.T) {
	final := neighborPacket(Up)
	final.flags = flagFinal
	const ms = time.Millisecond
	s := sessionIn(t, Up, Auth{}, epoch)
	now := epoch
	hear := func(p packet) { s.receive(now, p, nil) }
	configure := func(tx, rx time.Duration) []packet {
		cfg := s.cfg
		cfg.TransmitInterval, cfg.ReceiveInterval = tx, rx
		s.configure(cfg, now)
		return drain(s, now)
	}
	check := func(what string, tx, detection time.Duration, poll pollState) {
		t.Helper()
		if s.interval() != tx || s.detection() != detection || s.poll != poll {
			t.Errorf("%s: interval %v, detection %v, poll %d; want %v, %v, %d", what, s.interval(), s.detection(), s.poll, tx, detection, poll)
		}
	}
	check("at first", 50*ms, 150*ms, pollIdle)

	// Slower to send: not before the Final. Slower to take: at once.
	sent := configure(200*ms, 100*ms)
	if len(sent) != 1 || !sent[0].has(flagPoll) || sent[0].desiredTx != 200*ms || sent[0].requiredRx != 100*ms {
		t.Fatalf("sent %+v, want a Poll", sent)
	}
	check("polled", 50*ms, 300*ms, pollSent)
	hear(neighborPacket(Up))
	check("no Final yet", 50*ms, 300*ms, pollSent)

	// Another change waits: a Final could not tell which it confirms.
	if sent := configure(20*ms, 30*ms); len(sent) != 0 {
		t.Fatalf("sent %+v within a Poll Sequence", sent)
	}
	hear(final)
	check("confirmed", 200*ms, 300*ms, pollSettled)
	hear(final) // a repetition, from a Poll that was sent twice
	check("confirmed again", 200*ms, 300*ms, pollSettled)

	// A packet without Final lets the next begin. Faster to send holds at
	// once, as far as the neighbor takes it; faster to take after the Final.
	hear(neighborPacket(Up))
	check("the next", 50*ms, 300*ms, pollWanted)
	sent = drain(s, now)
	if len(sent) != 1 || !sent[0].has(flagPoll) || sent[0].desiredTx != 20*ms || sent[0].requiredRx != 30*ms {
		t.Fatalf("sent %+v, want a Poll", sent)
	}
	check("polled", 50*ms, 300*ms, pollSent)
	now = now.Add(s.nextTx.Sub(now))
	if sent := drain(s, now); len(sent) != 1 || !sent[0].has(flagPoll) {
		t.Errorf("sent %+v, want the Poll repeated", sent)
	}
	hear(final)
	check("confirmed", 50*ms, 150*ms, pollSettled)
	hear(neighborPacket(Up))
	check("at last", 50*ms, 150*ms, pollIdle)
	now = s.nextTx
	if sent := drain(s, now); len(sent) != 1 || sent[0].has(flagPoll) {
		t.Errorf("sent %+v, want no Poll", sent)
	}
}

// TestFastAtOnce: a Poll Sequence of the time in Down does not delay the fast
// intervals of Up.
func TestFastAtOnce(t *testing.T) {
	s := sessionIn(t, Up, Auth{}, epoch)
	s.receive(epoch, neighborPacket(Down), nil)
	if sent := drain(s, epoch); len(sent) != 1 || !sent[0].has(flagPoll) || sent[0].desiredTx != slowInterval {
		t.Fatalf("sent %+v, want a Poll for the slow interval", sent)
	}
	s.receive(epoch, neighborPacket(Init), nil)
	if sent := drain(s, epoch); len(sent) != 1 || !sent[0].has(flagPoll) || sent[0].desiredTx != 50*time.Millisecond || s.interval() != 50*time.Millisecond {
		t.Errorf("sent %+v, want a Poll for the fast interval", sent)
	}
}

// TestFinal answers Polls in every state but AdminDown, at once, and the clock
// of periodic packets goes on.
func TestFinal(t *testing.T) {
	for _, state := range []State{AdminDown, Down, Init, Up} {
		s := sessionIn(t, state, Auth{}, epoch)
		p := neighborPacket(Up)
		if state != Up {
			p = neighborPacket(Init)
		}
		p.flags = flagPoll
		p.requiredRx = 0 // not even that it takes no periodic packets matters
		s.receive(epoch, p, nil)
		due := s.nextTx
		sent := drain(s, epoch)
		answers := slices.DeleteFunc(sent, func(p packet) bool { return !p.has(flagFinal) })
		want := 1
		if state == AdminDown {
			want = 0 // such packets are discarded before
		}
		if len(answers) != want {
			t.Errorf("%v: sent %+v", state, sent)
		}
		if want == 1 && (answers[0].has(flagPoll) || !s.nextTx.Equal(due)) {
			t.Errorf("%v: %+v, next %v, was %v", state, answers, s.nextTx, due)
		}
	}
}

// TestPeriodic is what stops periodic packets, and what does not.
func TestPeriodic(t *testing.T) {
	tests := []struct {
		name   string
		state  State
		change func(*packet)
		want   bool
	}{
		{"ordinary", Up, func(*packet) {}, true},
		{"demand", Up, func(p *packet) { p.flags = flagDemand }, false},
		{"demand of one that is not up", Up, func(p *packet) { p.flags = flagDemand; p.state = Init }, true},
		{"demand while down", Down, func(p *packet) { p.flags = flagDemand; p.state = AdminDown }, true},
		{"takes none", Up, func(p *packet) { p.requiredRx = 0 }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := sessionIn(t, test.state, Auth{}, epoch)
			p := neighborPacket(Up)
			test.change(&p)
			s.receive(epoch, p, nil)
			drain(s, epoch)
			now := epoch.Add(slowInterval)
			s.heard = now
			if got := len(drain(s, now)) == 1; got != test.want {
				t.Errorf("periodic %v, want %v", got, test.want)
			}
			if !test.want && s.deadline().Before(now) {
				t.Errorf("would spin")
			}
			// A change of timers is told under Demand all the same.
			cfg := s.cfg
			cfg.TransmitInterval *= 2
			s.configure(cfg, now)
			if sent := drain(s, now); test.state == Up && (len(sent) != 1 || !sent[0].has(flagPoll)) {
				t.Errorf("sent %+v, want a Poll", sent)
			}
		})
	}
}

// TestShorterInterval: the neighbor takes packets faster, and does not wait for
// the old interval to pass.
func TestShorterInterval(t *testing.T) {
	s := sessionIn(t, Up, Auth{}, epoch)
	p := neighborPacket(Up)
	p.requiredRx = 10 * time.Second
	s.receive(epoch, p, nil)
	drain(s, s.nextTx)
	now := s.lastTx.Add(time.Second)
	p.requiredRx = 50 * time.Millisecond
	s.receive(now, p, nil)
	if sent := drain(s, now); len(sent) != 1 {
		t.Errorf("sent %d packets, want one at once", len(sent))
	}
}

// TestFarewell repeats AdminDown at the old interval until the neighbor knows.
func TestFarewell(t *testing.T) {
	s := sessionIn(t, Up, Auth{}, epoch)
	s.disable(epoch)
	if s.dismissed() {
		t.Error("dismissed before a packet was sent")
	}
	sent := 0
	now := epoch
	for now.Before(epoch.Add(time.Second)) && !s.dismissed() {
		s.advance(now)
		for _, p := range drain(s, now) {
			if p.state != AdminDown || p.diag != AdminReason || p.desiredTx < slowInterval {
				t.Fatalf("sent %+v", p)
			}
			sent++
		}
		now = s.deadline()
	}
	if took := s.lastTx.Sub(epoch); sent < 3 || sent > 5 || took > 150*time.Millisecond {
		t.Errorf("%d packets in %v", sent, took)
	}

	s = sessionIn(t, Up, Auth{}, epoch)
	s.disable(epoch)
	drain(s, epoch)
	s.receive(epoch, neighborPacket(Up), nil) // was under way
	if s.dismissed() {
		t.Error("dismissed before the neighbor knows")
	}
	s.receive(epoch, neighborPacket(Down), nil)
	if !s.dismissed() {
		t.Error("not dismissed")
	}
	// A session that was not Up owes nothing.
	s = sessionIn(t, Down, Auth{}, epoch)
	s.disable(epoch)
	drain(s, epoch)
	if !s.dismissed() {
		t.Error("not dismissed from Down")
	}
}

// signed is a neighbor's packet with an authentication section, made from the
// text of section 6.7.4 and not by authenticator.
func signed(kind, id byte, seq uint32, secret string) []byte {
	p := neighborPacket(Up)
	b := p.append(nil)
	b[1] |= flagAuth
	b[3] = 52
	b = append(b, kind, 28, id, 0)
	b = binary.BigEndian.AppendUint32(b, seq)
	key := make([]byte, 20)
	copy(key, secret)
	sum := sha1.Sum(append(slices.Clone(b), key...))
	return append(b, sum[:]...)
}

// TestAuthentication is section 6.7.4, with a window of three times the
// multiplier of 3.
func TestAuthentication(t *testing.T) {
	const secret = "correct horse"
	const last = 1<<32 - 3 // so that the window wraps
	tests := []struct {
		name       string
		meticulous bool
		b          []byte
		want       drop
	}{
		{"next", true, signed(5, 7, last+1, secret), kept},
		{"same, meticulous", true, signed(5, 7, last, secret), badAuth},
		{"same", false, signed(4, 7, last, secret), kept},
		{"older", false, signed(4, 7, last-1, secret), badAuth},
		{"end of the window", true, signed(5, 7, last+9-1<<32, secret), kept},
		{"beyond the window", true, signed(5, 7, last+10-1<<32, secret), badAuth},
		{"wrong secret", true, signed(5, 7, last+1, "battery staple"), badAuth},
		{"unknown key", true, signed(5, 9, last+1, secret), badAuth},
		{"second key", true, signed(5, 8, last+1, "next year's"), kept},
		{"other type", true, signed(4, 7, last+1, secret), badAuth},
		{"other type too", false, signed(5, 7, last+1, secret), badAuth},
		{"changed", true, func() []byte { b := signed(5, 7, last+1, secret); b[2]++; return b }(), badAuth},
		{"wrong length", true, func() []byte { b := signed(5, 7, last+1, secret); b[25] = 27; return b }(), badAuth},
		{"none", true, unhex(t, "20c00318"+"00000001"+"00000002"+"0000c350"+"0000c350"+"00000000"), badAuth},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			auth := Auth{Meticulous: test.meticulous, Keys: []Key{{7, secret}, {8, "next year's"}}}
			s := sessionIn(t, Up, auth, epoch)
			s.auth.got, s.auth.known = last, true
			p, raw, why := decode(test.b)
			if why != kept {
				t.Fatalf("not decoded: %s", dropNames[why])
			}
			if why = s.receive(epoch, p, raw); why != test.want {
				t.Errorf("%q, want %q", dropNames[why], dropNames[test.want])
			}
			if why != kept && s.auth.got != last {
				t.Errorf("a refused packet moved the sequence number to %d", s.auth.got)
			}
		})
	}
	t.Run("forgets", func(t *testing.T) {
		s := sessionIn(t, Up, testKeys(true), epoch)
		s.auth.got, s.auth.known = 1000, true
		detection := s.detection()
		p, raw, _ := decode(signed(5, 7, 5, secret))
		if why := s.receive(epoch.Add(2*detection-1), p, raw); why != badAuth {
			t.Errorf("%q before twice the Detection Time", dropNames[why])
		}
		if why := s.receive(epoch.Add(2*detection), p, raw); why != kept {
			t.Errorf("%q after twice the Detection Time", dropNames[why])
		}
	})
	t.Run("sends", func(t *testing.T) {
		s := sessionIn(t, Up, testKeys(true), epoch)
		seq := s.auth.sent
		b := s.next(s.nextTx, nil)
		if p, _, _ := decode(b); len(b) != 52 || !p.has(flagAuth) {
			t.Fatalf("sent %x", b)
		}
		receiver := authenticator{got: seq, known: true}
		receiver.configure(testKeys(true))
		receiver.got, receiver.known = seq, true
		if !receiver.verify(b, 3) || receiver.got != seq+1 {
			t.Errorf("not verified: %x, sequence number %d", b, receiver.got)
		}
	})
	t.Run("unexpected", func(t *testing.T) {
		s := sessionIn(t, Up, Auth{}, epoch)
		p, raw, _ := decode(signed(5, 7, 5, secret))
		if why := s.receive(epoch, p, raw); why != badAuth {
			t.Errorf("%q, want %q", dropNames[why], dropNames[badAuth])
		}
	})
}

// TestJitter draws many intervals: section 6.8.7.
func TestJitter(t *testing.T) {
	for multiplier, most := range map[uint8]time.Duration{1: 90, 2: 100, 3: 100} {
		s := sessionIn(t, Up, Auth{}, epoch)
		s.cfg.Multiplier = multiplier
		low, high := time.Hour, time.Duration(0)
		for range 10000 {
			d := s.jittered(100 * time.Millisecond)
			low, high = min(low, d), max(high, d)
		}
		if low < 75*time.Millisecond || low > 76*time.Millisecond || high > most*time.Millisecond || high < (most-1)*time.Millisecond {
			t.Errorf("multiplier %d: %v to %v", multiplier, low, high)
		}
	}
}
