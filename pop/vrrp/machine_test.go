package vrrp

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// step is one event of a machine's life and what must follow.
type step struct {
	at   time.Duration
	do   func(m *machine, now time.Time) []action
	want []action
	// after it:
	state State
	next  time.Duration // the deadline, from the beginning; 0 for none
}

func startUp(m *machine, now time.Time) []action { return m.start(now, from4) }

func shutDown(m *machine, _ time.Time) []action { return m.stop("stopped") }

func tick(m *machine, now time.Time) []action { return m.tick(now) }

func hear(priority uint8, from string, interval time.Duration) func(*machine, time.Time) []action {
	return func(m *machine, now time.Time) []action {
		return m.receive(now, advertisement{vrid: 51, priority: priority, interval: interval}, netip.MustParseAddr(from))
	}
}

func prioritize(p uint8) func(*machine, time.Time) []action {
	return func(m *machine, now time.Time) []action { return m.prioritize(now, p) }
}

// The routers are 192.0.2.1, with an interval of 256 ms: at priority 100 its
// skew is 156 ms, and its Active_Down_Interval 924 ms.
func TestMachine(t *testing.T) {
	const high, low = "192.0.2.200", "192.0.2.0"
	up := []action{advertise, acquire}
	down := []action{release, resign}
	becomeActive := []step{
		{0, startUp, nil, Backup, 924 * ms},
		{924 * ms, tick, up, Active, 1180 * ms},
	}
	for _, c := range []struct {
		name   string
		config Config
		steps  []step
	}{
		{"nobody else: 6.4.1, 6.4.2, 6.4.3", Config{Priority: 100}, []step{
			{0, tick, nil, Initialize, 0},
			{0, hear(1, high, 256*ms), nil, Initialize, 0},
			{0, startUp, nil, Backup, 924 * ms},
			{923 * ms, tick, nil, Backup, 924 * ms},
			{924 * ms, tick, up, Active, 1180 * ms},
			{1180 * ms, tick, []action{advertise}, Active, 1436 * ms},
			{1440 * ms, tick, []action{advertise}, Active, 1692 * ms}, // late, the pace holds
			{2000 * ms, tick, []action{advertise}, Active, 2256 * ms}, // too late to catch up
			{2001 * ms, shutDown, down, Initialize, 0},
			{2002 * ms, shutDown, nil, Initialize, 0},
			{2003 * ms, startUp, nil, Backup, 2927 * ms},
			{2004 * ms, shutDown, nil, Initialize, 0},
		}},
		{"the owner is Active at once", Config{Priority: 255}, []step{
			{0, startUp, up, Active, 256 * ms},
			{1 * ms, hear(254, high, 256*ms), []action{advertise}, Active, 256 * ms},
			{2 * ms, hear(255, low, 256*ms), []action{advertise}, Active, 256 * ms},
			{3 * ms, hear(255, high, 256*ms), []action{release}, Backup, 772 * ms},
			{4 * ms, hear(254, high, 256*ms), nil, Backup, 772 * ms},
		}},
		{"the owner asserts itself even after a pause", Config{Priority: 255}, []step{
			{0, startUp, up, Active, 256 * ms},
			{9000 * ms, hear(254, high, 256*ms), []action{advertise}, Active, 256 * ms},
		}},
		{"a backup learns the interval", Config{Priority: 100}, []step{
			{0, startUp, nil, Backup, 924 * ms},
			{100 * ms, hear(200, high, 512*ms), nil, Backup, 1948 * ms}, // 3 * 512 + 312
			{200 * ms, hear(0, high, 512*ms), nil, Backup, 512 * ms},    // skew of the learned one
			{512 * ms, tick, up, Active, 768 * ms},                      // its own interval
		}},
		{"equal priority does not preempt", Config{Priority: 100, Preempt: true}, []step{
			{0, startUp, nil, Backup, 924 * ms},
			{100 * ms, hear(100, low, 256*ms), nil, Backup, 1024 * ms},
		}},
		{"no preemption unless configured", Config{Priority: 100}, []step{
			{0, startUp, nil, Backup, 924 * ms},
			{900 * ms, hear(1, low, 256*ms), nil, Backup, 1824 * ms},
			{1800 * ms, hear(1, low, 256*ms), nil, Backup, 2724 * ms},
		}},
		{"preemption", Config{Priority: 100, Preempt: true}, []step{
			{0, startUp, nil, Backup, 924 * ms},
			{900 * ms, hear(99, high, 256*ms), nil, Backup, 924 * ms},
			{924 * ms, tick, up, Active, 1180 * ms},
			{925 * ms, hear(99, high, 256*ms), []action{advertise}, Active, 1180 * ms},
		}},
		{"preemption waits", Config{Priority: 100, Preempt: true, PreemptDelay: 2 * time.Second}, []step{
			{0, startUp, nil, Backup, 924 * ms},
			{500 * ms, hear(99, high, 256*ms), nil, Backup, 1424 * ms},
			{1400 * ms, hear(98, low, 256*ms), nil, Backup, 2324 * ms},
			{2300 * ms, hear(99, high, 256*ms), nil, Backup, 3224 * ms},
			{2500 * ms, hear(99, high, 256*ms), nil, Backup, 3224 * ms},
			{3224 * ms, tick, up, Active, 3480 * ms},
		}},
		{"a higher one starts the delay anew", Config{Priority: 100, Preempt: true, PreemptDelay: time.Second}, []step{
			{0, startUp, nil, Backup, 924 * ms},
			{100 * ms, hear(99, high, 256*ms), nil, Backup, 1024 * ms},
			{1000 * ms, hear(100, high, 256*ms), nil, Backup, 1924 * ms},
			{1200 * ms, hear(99, high, 256*ms), nil, Backup, 2124 * ms},
			{2199 * ms, hear(99, high, 256*ms), nil, Backup, 3123 * ms},
			{2200 * ms, hear(99, high, 256*ms), nil, Backup, 3123 * ms},
		}},
		{"a silent one is replaced without delay", Config{Priority: 100, Preempt: true, PreemptDelay: time.Hour}, []step{
			{0, startUp, nil, Backup, 924 * ms},
			{500 * ms, hear(99, high, 256*ms), nil, Backup, 1424 * ms},
			{1424 * ms, tick, up, Active, 1680 * ms},
		}},
		{"a resigned one is replaced without delay", Config{Priority: 100, Preempt: true, PreemptDelay: time.Hour}, []step{
			{0, startUp, nil, Backup, 924 * ms},
			{500 * ms, hear(99, high, 256*ms), nil, Backup, 1424 * ms},
			{600 * ms, hear(0, high, 256*ms), nil, Backup, 756 * ms},
			{756 * ms, tick, up, Active, 1012 * ms},
		}},
		{"Active yields to higher priority", Config{Priority: 100}, append(slices.Clone(becomeActive),
			step{1000 * ms, hear(101, low, 512*ms), []action{release}, Backup, 2848 * ms})},
		{"Active yields to a greater address", Config{Priority: 100}, append(slices.Clone(becomeActive),
			step{1000 * ms, hear(100, low, 256*ms), []action{advertise}, Active, 1180 * ms},
			step{1001 * ms, hear(100, high, 256*ms), []action{release}, Backup, 1925 * ms})},
		{"Active asserts itself when another resigns", Config{Priority: 100}, append(slices.Clone(becomeActive),
			step{1000 * ms, hear(0, high, 256*ms), []action{advertise}, Active, 1256 * ms})},
		{"Active that slept yields", Config{Priority: 100, Preempt: true, PreemptDelay: time.Second}, append(slices.Clone(becomeActive),
			step{924*ms + 990*ms, hear(34, low, 256*ms), []action{release}, Backup, 2838 * ms}, // 3 * 256 + 222
			step{2000 * ms, hear(34, low, 256*ms), nil, Backup, 2924 * ms})},
		{"Active that slept too short for that does not", Config{Priority: 100}, append(slices.Clone(becomeActive),
			step{924*ms + 989*ms, hear(34, low, 256*ms), []action{advertise}, Active, 1180 * ms})},
		{"a lower priority is told at once", Config{Priority: 100}, append(slices.Clone(becomeActive),
			step{1000 * ms, prioritize(50), []action{advertise}, Active, 1256 * ms},
			step{1001 * ms, prioritize(50), nil, Active, 1256 * ms},
			step{1002 * ms, hear(51, low, 256*ms), []action{release}, Backup, 1976 * ms})}, // skew 206
		{"a backup that becomes owner takes over", Config{Priority: 255}, []step{
			{0, prioritize(50), nil, Initialize, 0},
			{0, startUp, nil, Backup, 974 * ms},
			{1 * ms, prioritize(255), up, Active, 257 * ms},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.Interval = 256 * ms
			m, begin := newMachine(c.config), time.Unix(1_000_000, 0)
			for i, s := range c.steps {
				got := s.do(m, begin.Add(s.at))
				var next time.Duration
				if !m.deadline.IsZero() {
					next = m.deadline.Sub(begin)
				}
				if !slices.Equal(got, s.want) || m.state != s.state || next != s.next {
					t.Fatalf("step %d at %v: actions %v, %s, next %v; want %v, %s, next %v", i, s.at, got, m.state, next, s.want, s.state, s.next)
				}
				if m.reason == "" {
					t.Errorf("step %d: no reason for %s", i, m.state)
				}
			}
		})
	}
}
