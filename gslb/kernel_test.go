package gslb

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

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
