package gslb

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/miekg/dns"
)

// RateLimit bounds how many equal answers go to one network over UDP, so that
// the server is of no use to who sends queries in the name of a victim. Clients
// that have shown a server cookie, and TCP, are not limited: their addresses are
// true.
type RateLimit struct {
	// Responses per second of one answer to one network: an IPv4 /24 or an IPv6
	// /56. As many may come at once. 0 limits nothing.
	Responses int
	// Slip is how many answers over the limit there are to one that is sent, but
	// without records and truncated, so that a true client asks over TCP. 1 sends
	// all of them so; 0 sends none. The choice is by lot.
	Slip int
	// Exempt are networks that are not limited, such as those of resolvers that
	// ask on behalf of many.
	Exempt []netip.Prefix
}

// action is what becomes of an answer.
type action int

const (
	sendAnswer action = iota
	slipAnswer
	dropAnswer
)

// Size of a limiter: sets of slots, any of which a key may have.
const (
	limitSets  = 1 << 15
	limitSlots = 4
)

// limiter is the state of a RateLimit. A slot holds a key's tag in the high 16
// bits, and in the low 48 the time, in microseconds since start, until which the
// answers sent so far have used up the rate. A slot whose time has come is free.
// When all of a set are taken, the one that is free soonest is given up: too few
// are limited then, never too many.
//
// Its methods may be called by any number of goroutines. They do not allocate.
type limiter struct {
	RateLimit
	interval uint64 // µs between answers
	shared   uint64 // the same for the sockets' part of answers that are held
	held     atomic.Pointer[held]
	start    time.Time
	seed     maphash.Seed
	slots    [limitSets * limitSlots]atomic.Uint64
}

// newLimiter returns nil if nothing is to be limited.
func newLimiter(l RateLimit, now time.Time) *limiter {
	if l.Responses <= 0 {
		return nil
	}
	return &limiter{RateLimit: l, interval: intervalOf(l.Responses), shared: intervalOf(socketsShare(l.Responses)), start: now, seed: maphash.MakeSeed()}
}

func intervalOf(responses int) uint64 {
	return max(uint64(time.Second/time.Microsecond)/uint64(responses), 1)
}

const (
	tagShift = 48
	timeMask = 1<<tagShift - 1
)

// act counts one answer, told apart from others by a number, to a client, and
// says what is to become of it.
func (l *limiter) act(from netip.Addr, answer uint64, now time.Time, random uint64) action {
	if l == nil {
		return sendAnswer
	}
	return l.actAt(l.interval, from, answer, now, random)
}

// actAt is act with another interval between answers, in µs.
func (l *limiter) actAt(interval uint64, from netip.Addr, answer uint64, now time.Time, random uint64) action {
	if slices.ContainsFunc(l.Exempt, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return sendAnswer
	}
	if l.take(l.key(from, answer), uint64(now.Sub(l.start)/time.Microsecond), interval) {
		return sendAnswer
	}
	if l.Slip > 0 && random%uint64(l.Slip) == 0 {
		return slipAnswer
	}
	return dropAnswer
}

func (l *limiter) key(from netip.Addr, answer uint64) uint64 {
	var text [24]byte
	octets := from.As16()
	if from.Is4() {
		copy(text[:], octets[:15]) // a /24
	} else {
		copy(text[:], octets[:7]) // a /56
	}
	binary.LittleEndian.PutUint64(text[16:], answer)
	return maphash.Bytes(l.seed, text[:])
}

// take counts an answer and reports whether it is within the rate.
func (l *limiter) take(key, now, interval uint64) bool {
	tag := key >> tagShift
	set := l.slots[key%limitSets*limitSlots:][:limitSlots]
	for {
		slot, held := &set[0], uint64(0)
		for i := range set {
			v := set[i].Load()
			if v>>tagShift == tag && v != 0 {
				slot, held = &set[i], v
				break
			}
			if i == 0 || v&timeMask < held&timeMask {
				slot, held = &set[i], v
			}
		}
		until := now
		if held>>tagShift == tag {
			until = max(until, held&timeMask)
		}
		if until-now > uint64(time.Second/time.Microsecond)-interval {
			return false
		}
		if slot.CompareAndSwap(held, tag<<tagShift|(until+interval)&timeMask) {
			return true
		}
	}
}

// answer numbers an answer of the fast path. All answers to questions for names
// that do not exist in a zone are one, and so are those of one wildcard.
func (o *fastOutcome) answer() uint64 { return uint64(uintptr(unsafe.Pointer(o.which))) }

// answer numbers an answer of the slow path: those of one type for one name are
// one, and so are all errors of a kind.
func (l *limiter) answer(out *response, q name) uint64 {
	if out.rcode != dns.RcodeSuccess {
		return uint64(out.rcode)
	}
	return maphash.String(l.seed, string(q)) + uint64(out.qtype)
}
