package edge

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"anyedge/test/lab/netns"
	"anyedge/test/lab/topology"
)

// saturation is how long the machine has nothing to spare.
const saturation = 10 * time.Second

// TestBFD runs BFD of 3 times 50 ms between every node and its router: it stays
// up while workers and clients want more than the machine has, and it tells of
// a host that lost its power within a second, hold time 3 s or not.
func TestBFD(t *testing.T) {
	top := singles()
	top.BFD = topology.DefaultBFD
	l := upForTest(t, top)
	for _, step := range []struct {
		name string
		play func(*testing.T, *Lab)
	}{
		{"engine has real-time priority", engineIsRealtime},
		{"up while both cores are saturated", upWhileSaturated},
		{"power off", powerOffIsNoticed},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.play(t, l) }) {
			return
		}
	}
}

func engineIsRealtime(t *testing.T, l *Lab) {
	for _, m := range l.Plan.Of(topology.Node, "") {
		running, err := netns.Processes(l.Space(m.Name))
		if err != nil {
			t.Fatal(err)
		}
		engines := slices.DeleteFunc(running[l.Space(m.Name)], func(p netns.Process) bool {
			return !slices.Equal(p.Args, []string{l.options.Binary, "bfd"})
		})
		if len(engines) != 1 {
			t.Fatalf("%s runs %d engines", m.Name, len(engines))
		}
		attr, err := unix.SchedGetAttr(engines[0].PID, 0)
		if err != nil {
			t.Fatal(err)
		}
		if attr.Policy != unix.SCHED_FIFO {
			t.Skip("this machine gives no real-time priority, and BFD stays up on a saturated one by luck only")
		}
	}
}

// upWhileSaturated has clients open as many TLS connections as they can.
func upWhileSaturated(t *testing.T, l *Lab) {
	before, started, busy := flaps(t, l), time.Now(), cpu(t)
	ctx, cancel := context.WithTimeout(t.Context(), saturation)
	defer cancel()
	var clients sync.WaitGroup
	var served, failed atomic.Int64
	for _, client := range l.Plan.Of(topology.ClientHost, "") {
		for range 16 {
			clients.Go(func() {
				for ctx.Err() == nil {
					if _, err := l.Fetch(ctx, client.Name, false); err == nil {
						served.Add(1)
					} else if ctx.Err() == nil {
						failed.Add(1)
					}
				}
			})
		}
	}
	clients.Wait()
	idle := busy.spare(t)
	t.Logf("%d requests on connections of their own in %.1f s, %d failed, the machine was idle for %.1f%%",
		served.Load(), time.Since(started).Seconds(), failed.Load(), 100*idle)
	if idle > 0.1 {
		t.Error("the machine had something to spare")
	}
	// Counters are up to a second behind.
	select {
	case <-time.After(1100 * time.Millisecond):
	case <-t.Context().Done():
	}
	for node, n := range flaps(t, l) {
		if n != before[node] {
			t.Errorf("%s: %d flaps", node, n-before[node])
		}
	}
}

// powerOffIsNoticed behind either kind of router.
func powerOffIsNoticed(t *testing.T, l *Lab) {
	for _, side := range []struct{ node, client string }{{"fra-1", "paris"}, {"iad-1", "newyork"}} {
		f, err := l.Measure(t.Context(), Drill{
			Node: side.node, Client: side.client, Rate: 100, Settle: time.Second, Limit: 5 * time.Second,
			Event: func(ctx context.Context) (time.Time, error) { return l.PowerOff(ctx, side.node) },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(f)
		if gone := f.Gone.Sub(f.At); f.Gone.IsZero() || gone > time.Second {
			t.Errorf("%s: the route is gone after %v, want at most 1s", side.node, gone)
		}
		if served := f.Served.Sub(f.At); f.Served.IsZero() || served > time.Second {
			t.Errorf("%s: served elsewhere after %v, want at most 1s", side.node, served)
		}
		must(t, l.PowerOn(t.Context(), side.node))
		awaitServed(t, l, side.client, l.Plan.Machine(side.node).Pop)
	}
}

// flaps are how often BFD has left Up, by node.
func flaps(t *testing.T, l *Lab) map[string]uint64 {
	t.Helper()
	all := make(map[string]uint64)
	for _, m := range l.Plan.Of(topology.Node, "") {
		r, err := l.Routes(t.Context(), m.Name)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.BFD) != 1 {
			t.Fatalf("%s has %d BFD sessions", m.Name, len(r.BFD))
		}
		all[m.Name] = r.BFD[0].Flaps
	}
	return all
}

// ticks are what the processors have done so far.
type ticks struct{ idle, all uint64 }

// cpu reads them from proc(5), /proc/stat.
func cpu(t *testing.T) ticks {
	t.Helper()
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	var sum ticks
	for i, field := range strings.Fields(line)[1:9] { // without guests, who are in user
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			t.Fatal(fmt.Errorf("/proc/stat: %w", err))
		}
		if sum.all += n; i == 3 || i == 4 { // idle, and idle with I/O under way
			sum.idle += n
		}
	}
	return sum
}

// spare is the share of the time since then that was idle.
func (since ticks) spare(t *testing.T) float64 {
	t.Helper()
	now := cpu(t)
	return float64(now.idle-since.idle) / float64(now.all-since.all)
}
