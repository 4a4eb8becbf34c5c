package lab

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/gslb"
	"anyedge/gslb/steer"
	"anyedge/internal/fleet"
)

// runDNS runs the lab's own DNS node over a store in memory, in which every PoP
// says that it is healthy.
func runDNS(t *testing.T, l *Lab) *fleet.Fleet {
	t.Helper()
	file := l.path("gslb.yaml")
	cfg, err := configs.LoadGSLB(file)
	if err != nil {
		t.Fatal(err)
	}
	store := fleet.NewMemory()
	node, err := gslb.NewNode(gslb.NodeOptions{File: file, Config: cfg, Store: store, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		within(t, 5*time.Second, "the DNS node ends", func() {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	})
	f, err := fleet.New(fleet.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	session, err := store.NewSession(t.Context(), "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	report := func() {
		for _, p := range l.cfg.Pops {
			r := fleet.Report{Node: nodeName(p), Pop: p.Name, Region: p.Region, State: fleet.StateHealthy, Announcement: fleet.Announced}
			if err := f.PutReport(t.Context(), session, r); err != nil {
				t.Error(err)
			}
		}
	}
	report()
	await(t, "the DNS takes every PoP for up", func() bool {
		for _, p := range node.Status().Pops {
			if p.State != steer.Up.String() {
				return false
			}
		}
		return len(node.Status().Pops) == len(l.cfg.Pops)
	})
	return f
}

func TestDNSStepsJudgeARealServer(t *testing.T) {
	l := newTestLab(t, configs.DefaultLab())
	f := runDNS(t, l)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	seen, err := l.dnsSteers(ctx)
	if err != nil || !strings.Contains(seen, "198.51.100.0/24 to fra (scope /") {
		t.Errorf("steers: %q, %v", seen, err)
	}
	if err := l.dnsAnswersAll(ctx); err != nil {
		t.Errorf("nearest: %v", err)
	}
	if err := l.dnsAvoids(0)(ctx); err == nil || !strings.Contains(err.Error(), "198.51.100.0/24 are still sent to fra") {
		t.Errorf("clients near fra are sent there, and avoids says %v", err)
	}

	if err := f.SetDrain(ctx, fleet.Drain{Scope: fleet.ScopePop, Name: "fra"}); err != nil {
		t.Fatal(err)
	}
	if err := l.eventually(ctx, "DNS moves", 10*time.Second, l.dnsAvoids(0)); err != nil {
		t.Error(err)
	}
	if err := l.dnsAnswersAll(ctx); err == nil || !strings.Contains(err.Error(), "want fra") {
		t.Errorf("fra is drained, and nearest says %v", err)
	}
}

// An answer whose scope is not that of the server's decision is found out.
func TestScopeThatIsNotExactIsFoundOut(t *testing.T) {
	l := newTestLab(t, configs.DefaultLab())
	runDNS(t, l)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	paris := l.cfg.Clients[0]
	a, err := l.lookup(ctx, paris.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.scopeExact(ctx, paris, a); err != nil {
		t.Errorf("the server's own scope /%d: %v", a.Scope, err)
	}
	for scope, want := range map[int]string{0: "scope /0", 33: "scope /33", 1: "too wide", 32: "too narrow"} {
		wrong := a
		wrong.Scope = scope
		if err := l.scopeExact(ctx, paris, wrong); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "nil") {
			t.Errorf("scope /%d: %v, want %q", scope, err, want)
		}
	}
}

func TestFlipAndLast(t *testing.T) {
	for _, c := range []struct {
		addr string
		bit  int
		want string
	}{
		{"0.0.0.0", 0, "128.0.0.0"}, {"192.0.2.0", 23, "192.0.3.0"}, {"192.0.2.1", 31, "192.0.2.0"}, {"2001:db8::", 127, "2001:db8::1"},
	} {
		if got := flip(netip.MustParseAddr(c.addr), c.bit); got.String() != c.want {
			t.Errorf("flip %s bit %d: %s, want %s", c.addr, c.bit, got, c.want)
		}
	}
	for prefix, want := range map[string]string{
		"192.0.2.0/24": "192.0.2.255", "192.0.2.8/29": "192.0.2.15", "192.0.2.1/32": "192.0.2.1", "0.0.0.0/0": "255.255.255.255", "2001:db8::/33": "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff",
	} {
		if got := last(netip.MustParsePrefix(prefix)); got.String() != want {
			t.Errorf("last of %s: %s, want %s", prefix, got, want)
		}
	}
}
