package gslb

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/gslb/steer"
	"anyedge/gslb/xdp"

	"github.com/miekg/dns"
)

var (
	kernelAt4 = netip.MustParseAddrPort("192.0.2.53:53")
	kernelAt6 = netip.MustParseAddrPort("[2001:db8:1::53]:53")
)

// kernelTrial loads the program with the answers of a view.
func kernelTrial(t testing.TB, v *view, o xdp.Options) *xdp.Trial {
	t.Helper()
	o.Listen = []netip.AddrPort{kernelAt4, kernelAt6}
	trial, err := xdp.NewTrial(o)
	if errors.Is(err, os.ErrPermission) && os.Getuid() != 0 {
		t.Skip("programs in the kernel need root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trial.Close)
	table, _ := v.export(false)
	if err := trial.Update(table); err != nil {
		t.Fatal(err)
	}
	return trial
}

// kernelAndSlow answers a message in the kernel and on the slow path.
func kernelAndSlow(t testing.TB, v *view, trial *xdp.Trial, from netip.AddrPort, msg []byte) (kernel, slow []byte) {
	t.Helper()
	to := kernelAt4
	if from.Addr().Is6() {
		to = kernelAt6
	}
	kernel, err := trial.Ask(from, to, msg)
	if err != nil {
		t.Fatal(err)
	}
	// What differs by lot is not for the kernel: any number will do.
	return kernel, v.respond(request{msg: msg, from: from.Addr(), now: 1_700_000_000, random: rand.Uint64()}).msg
}

// What the kernel answers is what the slow path answers, octet by octet: for every
// name of the zones, for names beside and below, for every type and form of query.
func TestKernelAgreesWithSlow(t *testing.T) {
	v := testView(t)
	trial := kernelTrial(t, v, xdp.Options{})
	clients := []netip.AddrPort{
		netip.MustParseAddrPort("198.51.100.1:4000"), netip.MustParseAddrPort("203.0.113.9:53"),
		netip.MustParseAddrPort("[2001:db8:a::1]:4000"), netip.MustParseAddrPort("[2001:db8:ffff::1]:65535"),
	}
	names := []string{"elsewhere.example.", "example.", "."}
	for n := range v.entries {
		text := n.String()
		names = append(names, text, "x."+text, "x.y."+text, "*."+text, "x.*."+text)
	}
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeMX, dns.TypeNS, dns.TypeSOA, dns.TypeDS,
		dns.TypeCNAME, dns.TypeDNAME, dns.TypeHTTPS, dns.TypeANY, dns.TypeAXFR, dns.TypeOPT, sample, 1}
	asked, answered := 0, 0
	for _, n := range names {
		for _, qtype := range types {
			for i, q := range variants(asker(n, qtype)) {
				wire, err := q.Pack()
				if err != nil {
					t.Fatal(err)
				}
				asked++
				kernel, slow := kernelAndSlow(t, v, trial, clients[(asked+i)%len(clients)], wire)
				if kernel == nil {
					continue
				}
				answered++
				if !bytes.Equal(kernel, slow) {
					t.Fatalf("%s %s\nkernel %x\nslow   %x", n, dns.Type(qtype), kernel, slow)
				}
			}
		}
	}
	t.Logf("%d of %d in the kernel: %v", answered, asked, trial.Outcomes())
	if answered*10 < asked*3 {
		t.Errorf("only %d of %d queries were answered in the kernel", answered, asked)
	}
}

// FuzzKernelAgreesWithSlow asserts that what the kernel answers, the slow path
// answers in the same octets.
func FuzzKernelAgreesWithSlow(f *testing.F) {
	v := testView(f)
	trial := kernelTrial(f, v, xdp.Options{})
	for _, n := range []string{"www.edge.example", "x.any.edge.example", "hop.edge.example", "nope.edge.example",
		"x.wild.edge.example", "x.child.edge.example", "hostmaster.edge.example", "ns1.edge.example", "v4only.edge.example"} {
		for _, q := range variants(asker(n, dns.TypeA)) {
			wire, err := q.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(wire, false)
		}
	}
	f.Fuzz(func(t *testing.T, msg []byte, ipv6 bool) {
		from := netip.MustParseAddrPort("203.0.113.1:4000")
		if ipv6 {
			from = netip.MustParseAddrPort("[2001:db8:a::1]:4000")
		}
		if len(msg) > 1400 {
			return // more than one packet
		}
		if kernel, slow := kernelAndSlow(t, v, trial, from, msg); kernel != nil && !bytes.Equal(kernel, slow) {
			t.Fatalf("query %x\nkernel %x\nslow   %x", msg, kernel, slow)
		}
	})
}

// attachedTrial is a kernel that is asked by trial.
type attachedTrial struct {
	*xdp.Trial
	updated  chan struct{}
	attached bool
}

func (a *attachedTrial) Run(context.Context) error { return nil }
func (a *attachedTrial) Attached() bool            { return a.attached }
func (a *attachedTrial) Trouble() error            { return nil }

func (a *attachedTrial) Update(t *xdp.Table) error {
	err := a.Trial.Update(t)
	select {
	case a.updated <- struct{}{}:
	default:
	}
	return err
}

// A PoP that goes down is out of the kernel's answers with the next table, and new
// zones are in.
func TestKernelFollowsTheView(t *testing.T) {
	s, err := New(Config{Listen: []netip.AddrPort{kernelAt4}, Zones: testZones(), RateLimit: RateLimit{Responses: 1000}}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	in := steering()
	if err := s.Update(table(t, in)); err != nil {
		t.Fatal(err)
	}
	k := &attachedTrial{kernelTrial(t, s.view.Load(), xdp.Options{}), make(chan struct{}, 1), true}
	ctx, cancel := context.WithCancel(t.Context())
	fed := make(chan struct{})
	go func() { s.feedKernel(ctx, k); close(fed) }()
	defer func() { cancel(); <-fed }()
	wire, err := withSubnet("www.edge.example", subnet("198.51.100.0/24")).Pack()
	if err != nil {
		t.Fatal(err)
	}
	await := func(want string) {
		t.Helper()
		for got := ""; got != want; {
			select {
			case <-k.updated:
			case <-time.After(5 * time.Second):
				t.Fatalf("the kernel gives %s, want %s", got, want)
			}
			kernel, _ := kernelAndSlow(t, s.view.Load(), k.Trial, netip.MustParseAddrPort("198.51.100.1:4000"), wire)
			got = unpack(t, kernel).Answer[0].(*dns.A).A.String()
		}
	}
	await("192.0.2.1")
	in.Pops[0].State = steer.Down
	if err := s.Update(table(t, in)); err != nil {
		t.Fatal(err)
	}
	await("192.0.2.2")
}

// Of answers that the kernel gives too while it is attached, the sockets have their
// share, so that both together keep to the limit.
func TestLimitIsShared(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	for _, responses := range []int{2, 3, 10, 1000} {
		l := newLimiter(RateLimit{Responses: responses}, start)
		both, mine := new(packed), new(packed)
		attached := true
		l.held.Store(&held{map[*packed]*xdp.Answer{both: {}}, func() bool { return attached }})
		sent := func(which *packed, from string) (n int) {
			for range 2 * responses {
				if l.actFast(netip.MustParseAddr(from), &fastOutcome{which: which}, start.Add(time.Second), 1) == sendAnswer {
					n++
				}
			}
			return n
		}
		share := socketsShare(responses)
		if got := sent(both, "192.0.2.1"); got != share || share < 1 || responses-share < 1 {
			t.Errorf("%d of %d, share %d", got, responses, share)
		}
		if got := sent(mine, "192.0.2.1"); got != responses {
			t.Errorf("%d of %d of an answer of their own", got, responses)
		}
		attached = false
		if got := sent(both, "192.0.3.1"); got != responses {
			t.Errorf("%d of %d while alone", got, responses)
		}
	}
}

// What the kernel has no room for is not among what it gives too: its rate is the
// sockets' alone.
func TestExportLeavesOutWhatDoesNotFit(t *testing.T) {
	zones, err := loadZones([]Zone{{Name: "edge.example", Text: "@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns\nns 60 A 192.0.2.1\nsmall 60 TXT a\nlarge 60 TXT " +
		strings.Repeat(strings.Repeat("x", 250)+" ", 3) + "\n"}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := newView(zones, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, answers := v.export(true)
	kept := func(text string) bool {
		n, err := parseName(text)
		if err != nil {
			t.Fatal(err)
		}
		at := v.entries[n].at.types
		i := slices.IndexFunc(at, func(q typed) bool { return q.qtype == dns.TypeTXT })
		return answers[at[i].packed] != nil
	}
	if !kept("small.edge.example") || kept("large.edge.example") {
		t.Errorf("small %t, large %t", kept("small.edge.example"), kept("large.edge.example"))
	}
}
