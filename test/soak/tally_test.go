package soak

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// tally counts what happened.
type tally struct {
	up, down atomic.Int64 // bytes that arrived

	mu       sync.Mutex
	outcomes map[string]map[string]int // by pair
	kinds    map[string]int            // exchanges by fault and feature
	events   map[string]int
}

func newTally() *tally {
	return &tally{outcomes: make(map[string]map[string]int), kinds: make(map[string]int), events: make(map[string]int)}
}

func (t *tally) event(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events[what]++
}

func (t *tally) exchange(x *exchange, outcome string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.outcomes[x.pair]
	if of == nil {
		of = make(map[string]int)
		t.outcomes[x.pair] = of
	}
	of[outcome]++
	count := func(name string, yes bool) {
		if yes {
			t.kinds[name]++
		}
	}
	count("client: "+string(x.client), x.client != sound)
	count("origin: "+string(x.origin), x.origin != sound)
	count("no fault", x.client == sound && x.origin == sound)
	count("expect", x.expect)
	count("early answer", x.early >= 0)
	count("late answer", x.late > 0)
	count("hints", x.hints > 0)
	count("half-close after the request", x.halfway)
	count("HTTP/1.0", x.old)
	count("tunnel", x.tunnel)
	count("slow writer", x.request.slow || x.response.slow)
	count("slow reader", x.request.reader || x.response.reader)
	count("trailers", x.request.trailers || x.response.trailers)
	count("request body", !x.request.none)
}

// total is how many exchanges there were.
func (t *tally) total() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, of := range t.outcomes {
		for _, k := range of {
			n += k
		}
	}
	return n
}

// String is a table for people.
func (t *tally) String() string {
	n := t.total()
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d exchanges, %d MB up, %d MB down\n", n, t.up.Load()>>20, t.down.Load()>>20)
	for _, pair := range slices.Sorted(maps.Keys(t.outcomes)) {
		fmt.Fprintf(&b, "  %-20s", pair)
		for _, outcome := range slices.Sorted(maps.Keys(t.outcomes[pair])) {
			fmt.Fprintf(&b, " %s %d;", outcome, t.outcomes[pair][outcome])
		}
		b.WriteString("\n")
	}
	for _, group := range []map[string]int{t.kinds, t.events} {
		b.WriteString("  --\n")
		for _, kind := range slices.Sorted(maps.Keys(group)) {
			fmt.Fprintf(&b, "  %7d %s\n", group[kind], kind)
		}
	}
	return b.String()
}
