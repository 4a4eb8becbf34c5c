package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"anyedge/pop"
	"anyedge/test/lab/netns"
	"anyedge/test/lab/topology"
)

// testPrefix keeps the tests away from a lab that somebody looks at.
const testPrefix = "aetest-"

// limit bounds every wait of a test; what is waited for takes a second or three.
const limit = 20 * time.Second

// upForTest brings a lab up, and takes it away at the end of the test.
func upForTest(t *testing.T, top topology.Topology) *Lab {
	t.Helper()
	if os.Getenv("ANYEDGE_LAB") == "" {
		t.Skip("a lab in network namespaces needs root and a machine of its own: set ANYEDGE_LAB=1")
	}
	binary, consul := "../../../bin/anyedge", "../../../.cache/consul"
	if err := Missing(binary, consul); err != nil {
		t.Skip("a lab cannot run here: ", err)
	}
	release, err := Claim(testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
		defer cancel()
		if err := Down(ctx, testPrefix); err != nil {
			t.Error(err)
		}
	})
	start := time.Now()
	l, err := Up(t.Context(), Options{Topology: top, Prefix: testPrefix, Binary: binary, Consul: consul, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %.1f s", time.Since(start).Seconds())
	t.Cleanup(func() {
		if t.Failed() {
			keepOutput(t, l)
		}
	})
	return l
}

// keepOutput saves what the programs of a lab printed before the lab goes.
func keepOutput(t *testing.T, l *Lab) {
	kept := t.ArtifactDir()
	files, err := filepath.Glob(l.path("*", "*.log"))
	for _, file := range files {
		data, e := os.ReadFile(file)
		name := filepath.Base(filepath.Dir(file)) + "-" + filepath.Base(file)
		err = errors.Join(err, e, os.WriteFile(filepath.Join(kept, name), data, 0o644))
	}
	t.Logf("the output of all programs is in %s (with go test -artifacts it stays): %v", kept, err)
}

// running runs something until the function that it returns is called, which
// waits for its end.
func running(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// TestEdge plays the main story in one lab: every step leaves it as it was.
func TestEdge(t *testing.T) {
	l := upForTest(t, topology.Default())
	for _, step := range []struct {
		name string
		play func(*testing.T, *Lab)
	}{
		{"every client reaches its PoP", everyClientReachesItsPop},
		{"both nodes of a PoP serve", bothNodesServe},
		{"the DNS leads to the nearest PoP", dnsLeadsToNearest},
		{"a capture has what passed", captureHasWhatPassed},
		{"drain", drainMovesClients},
		{"agent killed", agentKilled},
		{"down leaves nothing", downLeavesNothing},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.play(t, l) }) {
			return
		}
	}
}

func everyClientReachesItsPop(t *testing.T, l *Lab) {
	for client, want := range map[string]string{"paris": "fra", "newyork": "iad", "tokyo": "sin"} {
		for _, v6 := range []bool{false, true} {
			a, err := l.Fetch(t.Context(), client, v6)
			if err != nil || a.Pop != want {
				t.Errorf("%s, IPv6 %v: served by %+v, %v; want %s", client, v6, a, err, want)
			}
		}
	}
}

// bothNodesServe: the routers' kernels spread connections over equal paths, FRR's
// as well as BIRD's.
func bothNodesServe(t *testing.T, l *Lab) {
	for _, c := range []struct{ client, pop string }{{"paris", "fra"}, {"tokyo", "sin"}} {
		for _, v6 := range []bool{false, true} {
			served := make(map[string]int)
			for range 40 { // all on one node: once in 2^39
				a, err := l.Fetch(t.Context(), c.client, v6)
				if err != nil {
					t.Fatal(err)
				}
				served[a.Node]++
			}
			if len(served) != 2 || served[c.pop+"-1"] == 0 || served[c.pop+"-2"] == 0 {
				t.Errorf("%s, IPv6 %v: served by %v, want both nodes of %s", c.client, v6, served, c.pop)
			}
			t.Logf("%s, IPv6 %v: %v", c.client, v6, served)
		}
	}
}

// dnsLeadsToNearest: each client asks over its own network, and gets the
// addresses of the nodes of its PoP.
func dnsLeadsToNearest(t *testing.T, l *Lab) {
	for client, pop := range map[string]string{"paris": "fra", "newyork": "iad", "tokyo": "sin"} {
		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return l.Space(client).Dial(ctx, network, l.Plan.DNSAddress().String())
		}}
		if err := l.Eventually(t.Context(), client+" is led to "+pop, limit, func(ctx context.Context) error {
			got, err := resolver.LookupNetIP(ctx, "ip", l.Plan.Host()+".")
			if err != nil {
				return err
			}
			for _, a := range got {
				if node := l.nodeAt(a); node == nil || node.Pop != pop {
					return fmt.Errorf("it got %v", got)
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// nodeAt is the node that has an address of its own, or nil.
func (l *Lab) nodeAt(a netip.Addr) *topology.Machine {
	for _, n := range l.Plan.Of(topology.Node, "") {
		if a = a.Unmap(); n.Address(a.Is6()) == a {
			return n
		}
	}
	return nil
}

func captureHasWhatPassed(t *testing.T, l *Lab) {
	end, err := l.ParseEnd("paris")
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Capture(t.Context(), end, "tcp port 443")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if _, err := l.Fetch(t.Context(), "paris", false); err != nil {
		t.Error(err)
	}
	// tcpdump writes when it gets to run.
	service := l.Plan.ServiceAddress(false).As4()
	if err := l.Eventually(t.Context(), "the capture has a connection", limit, func(context.Context) error {
		pcap, err := os.ReadFile(c.File)
		if n := bytes.Count(pcap, service[:]); err == nil && n < 5 { // a handshake has more packets
			err = fmt.Errorf("%d packets in %d bytes", n, len(pcap))
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func drainMovesClients(t *testing.T, l *Lab) {
	next := l.Plan.Serves("paris", "fra")
	v4, v6 := l.NewLoad("paris", false, 50, 3*time.Second), l.NewLoad("paris", true, 50, 3*time.Second)
	v4.Repeat, v6.Repeat = true, true
	stop4, stop6 := running(t, v4.Run), running(t, v6.Run)
	awaitRequests(t, l, v4, 25)
	awaitRequests(t, l, v6, 25)
	at, err := l.Drain(t.Context(), "fra-1", "--pop", "fra")
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"fra-1", "fra-2"} {
		awaitStatus(t, l, node, func(s pop.Status) error {
			if s.Drain.Stage != pop.DrainCompleted {
				return fmt.Errorf("drain stage %s: %s", s.Drain.Stage, s.Announcement.Reason)
			}
			return nil
		})
	}
	stop4()
	stop6()
	for _, load := range []*Load{v4, v6} {
		rs := load.Results()
		t.Log(rs)
		if n := len(rs.Failed()); n > 0 {
			t.Errorf("%d failed requests", n)
		}
		if _, ok := rs.FirstServed(by(next)); !ok {
			t.Errorf("%s served nothing", next)
		}
		last, _ := rs.LastServed(by("fra"))
		t.Logf("fra served the last request %.2f s after the drain", last.Sub(at).Seconds())
	}
	if _, err := l.Undrain(t.Context(), "fra-1", "--pop", "fra"); err != nil {
		t.Fatal(err)
	}
	awaitServed(t, l, "paris", "fra")
}

// agentKilled: the kernel closes the BGP session, and clients move.
func agentKilled(t *testing.T, l *Lab) {
	f, err := l.Measure(t.Context(), Drill{
		Node: "iad-1", Client: "newyork", Rate: 100, Settle: time.Second, Limit: limit,
		Event: func(context.Context) (time.Time, error) { return l.KillAgent("iad-1") },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(f)
	if f.Served.IsZero() || f.Gone.IsZero() {
		t.Error("the client was not served elsewhere, or the route is still there")
	}
	if recovery := f.Results.Recovery(f.At); recovery > time.Second {
		t.Errorf("new connections failed for %v, want at most 1s", recovery)
	}
	startAgain(t, l, "iad-1")
	awaitServed(t, l, "newyork", "iad")
}

// startAgain starts a node whose agent is gone; its worker goes when its drain
// timeout is over.
func startAgain(t *testing.T, l *Lab, node string) {
	t.Helper()
	if err := l.Eventually(t.Context(), node+" starts again", limit, func(context.Context) error { return l.Start(node) }); err != nil {
		t.Fatal(err)
	}
}

// downLeavesNothing: also of what others started in the lab.
func downLeavesNothing(t *testing.T, l *Lab) {
	if _, err := l.Space("paris").Start(l.Dir, l.path("sleep.log"), "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	running, err := netns.Processes(l.spaces()...)
	if err != nil {
		t.Fatal(err)
	}
	if err := Down(t.Context(), testPrefix); err != nil {
		t.Fatal(err)
	}
	if left, err := netns.List(testPrefix); err != nil || len(left) > 0 {
		t.Errorf("namespaces are left: %v, %v", left, err)
	}
	if _, err := os.Stat(l.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the run folder is left: %v", err)
	}
	n := 0
	for space, all := range running {
		for _, p := range all {
			n++
			// Another process may have the number by now, but not the command line.
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
			if err == nil && string(line) == strings.Join(p.Args, "\x00")+"\x00" {
				t.Errorf("%v is left of %s", p, space)
			}
		}
	}
	if n < len(l.Plan.Of(topology.Node, ""))*2 {
		t.Errorf("only %d processes were found while the lab was up", n)
	}
}

// awaitRequests waits until a load has had so many answers.
func awaitRequests(t *testing.T, l *Lab, load *Load, n int) {
	t.Helper()
	if err := l.Eventually(t.Context(), "requests", limit, func(context.Context) error {
		if rs := load.Results(); len(rs) < n {
			return fmt.Errorf("only %d of %d", len(rs), n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func by(pop string) func(Answer) bool { return func(a Answer) bool { return a.Pop == pop } }

func awaitStatus(t *testing.T, l *Lab, node string, holds func(pop.Status) error) {
	t.Helper()
	err := l.Eventually(t.Context(), node, limit, func(ctx context.Context) error {
		s, err := l.Status(ctx, node)
		if err != nil {
			return err
		}
		return holds(s)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func awaitServed(t *testing.T, l *Lab, client, pop string) {
	t.Helper()
	for _, v6 := range []bool{false, true} {
		if _, err := l.AwaitServed(t.Context(), client, v6, limit, pop); err != nil {
			t.Fatal(err)
		}
	}
}
