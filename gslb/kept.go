package gslb

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"anyedge/gslb/steer"

	"github.com/miekg/dns"
)

// maxKept bounds the packed answers with signatures that are kept, each of up to
// udpPayload octets. What is over that is for the slow path.
const maxKept = 1 << 17

// kept are the forms of one packed answer that have signatures in them. Each is
// packed when it is asked for first, and again when one of its signatures is no
// longer given out. Any number of goroutines may use it.
type kept struct {
	// room is how many more there may be, of all answers packed together.
	room *atomic.Int64
	mu   sync.Mutex // held to replace forms
	// forms are by the first of the addresses that a steered answer has; others
	// have one, by the zero address. The map is never changed.
	forms atomic.Pointer[map[netip.Addr]*form]
}

// form is an answer with signatures. It is never changed.
type form struct {
	packed // without a body if it is larger than UDP can take
	term
	// addrs and ttl are the steered addresses that are in it.
	addrs []netip.Addr
	ttl   time.Duration
}

// given reports whether the signatures in a form, if there are any of a term, are
// those to give out at a time.
func (f *form) given(now uint32) bool { return f.term == (term{}) || f.at(now) }

// get returns the form for a steering decision at a time, nil if there is none.
func (k *kept) get(reply *steer.Reply, now uint32) *form {
	forms := k.forms.Load()
	if forms == nil {
		return nil
	}
	f := (*forms)[first(reply.Addrs)]
	if f == nil || !f.given(now) || f.ttl != reply.TTL || !slices.Equal(f.addrs, reply.Addrs) {
		return nil
	}
	return f
}

// put takes a form in, if there is room.
func (k *kept) put(f *form) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := make(map[netip.Addr]*form)
	if forms := k.forms.Load(); forms != nil {
		maps.Copy(next, *forms)
	}
	if key := first(f.addrs); next[key] != nil || k.room.Add(-1) >= 0 {
		next[key] = f
		k.forms.Store(&next)
	}
}

// first returns the first address, or the zero one.
func first(addrs []netip.Addr) netip.Addr {
	if len(addrs) == 0 {
		return netip.Addr{}
	}
	return addrs[0]
}

// secure returns the answer with signatures to a question that has k, nil if the
// slow path has to answer.
func (v *view) secure(k *kept, q *fastQuery, req *request, client netip.Prefix, reply *steer.Reply) *packed {
	if k == nil || q.compact {
		return nil
	}
	f := k.get(reply, req.now)
	if f == nil {
		if f = v.packSecure(q, req, client, reply); f == nil {
			return nil
		}
		k.put(f)
	}
	if f.body == nil {
		return nil
	}
	return &f.packed
}

// packSecure packs an answer with its signatures, as the slow path gives it; nil
// if they cannot be made.
func (v *view) packSecure(fast *fastQuery, req *request, client netip.Prefix, reply *steer.Reply) *form {
	n := name(fast.lowered[:fast.named])
	q := &query{asked: true, name: n, spelled: []byte(n), qtype: fast.qtype, qclass: dns.ClassINET, edns: true, do: true}
	r := v.resolve(q, client, req.random, req.now)
	if r.unsigned {
		return nil
	}
	f := &form{term: r.term, addrs: slices.Clone(reply.Addrs), ttl: reply.TTL}
	if msg := pack(q, r, nil, udpPayload); msg != nil {
		f.packed = *newPacked(msg, len(n))
	}
	return f
}
