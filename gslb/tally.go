package gslb

import (
	"anyedge/gslb/steer"

	"github.com/prometheus/client_golang/prometheus"
)

// tally counts what one socket's fast path answers, and hands it to the metrics
// batch by batch: counters that all cores share would cost more than an answer.
//
// It belongs to one goroutine.
type tally struct {
	m       *metrics
	queries [maxTallied + 1][16]*count // by type and rcode
	steered map[steeredKey]*count
	view    *view // that the keys of steered are of
	dirty   []*count
}

// maxTallied stands for itself and the types above, all of which are too seldom
// for the metrics to tell them apart.
const maxTallied = 128

// steeredKey tells decisions apart by the first of the PoPs, as a place in the
// table: a table gives the same slice for the same decision.
type steeredKey struct {
	pops   *string
	length int
	reason steer.Reason
}

// count is how often something happened since it was handed on.
type count struct {
	n  int
	to []prometheus.Counter
}

func newTally(m *metrics) *tally {
	return &tally{m: m}
}

// count records an answer that has been given from a view.
func (t *tally) count(v *view, out *fastOutcome) {
	at := &t.queries[min(out.qtype, maxTallied)][out.rcode&0xf]
	c := *at
	if c == nil {
		r := response{asked: true, qtype: out.qtype, rcode: out.rcode}
		c = &count{to: []prometheus.Counter{t.m.queries.WithLabelValues("udp", qtypeLabel(r), rcodeLabel(r.rcode))}}
		*at = c
	}
	t.add(c)
	if out.steered {
		t.add(t.decision(v, &out.reply))
	}
}

// decision returns the count of a steering decision, which has PoPs.
func (t *tally) decision(v *view, reply *steer.Reply) *count {
	if t.view != v {
		t.view, t.steered = v, make(map[steeredKey]*count)
	}
	key := steeredKey{&reply.Pops[0], len(reply.Pops), reply.Reason}
	c := t.steered[key]
	if c == nil {
		c = new(count)
		for _, pop := range reply.Pops {
			c.to = append(c.to, t.m.steered.WithLabelValues(pop, reply.Reason.String()))
		}
		t.steered[key] = c
	}
	return c
}

func (t *tally) add(c *count) {
	if c.n == 0 {
		t.dirty = append(t.dirty, c)
	}
	c.n++
}

// flush hands on what was counted.
func (t *tally) flush() {
	for _, c := range t.dirty {
		for _, counter := range c.to {
			counter.Add(float64(c.n))
		}
		c.n = 0
	}
	t.dirty = t.dirty[:0]
}
