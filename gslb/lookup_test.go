package gslb

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"anyedge/gslb/steer"
	"anyedge/internal/fleet"
)

func TestLookupTellsWhatCameBack(t *testing.T) {
	n := runNode(t, fleet.NewMemory(), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a, err := Lookup(ctx, n.server, "www.edge.example", steer.IPv6, osaka)
	if err != nil || !slices.Equal(a.Addresses, []netip.Addr{netip.MustParseAddr("2001:db8::2")}) || a.TTL != 5*time.Second || a.Scope <= 0 || a.Scope > 24 {
		t.Errorf("AAAA of www: %+v, %v", a, err)
	}
	a, err = Lookup(ctx, n.server, "mail.edge.example.", steer.IPv4, netip.MustParsePrefix("2001:db8:1::/48"))
	if err != nil || len(a.Addresses) != 1 || a.TTL != 5*time.Minute || a.Scope != 0 {
		t.Errorf("A of mail: %+v, %v", a, err)
	}
	if a, err = Lookup(ctx, n.server, "mail.edge.example", steer.IPv6, paris); err != nil || len(a.Addresses) != 0 {
		t.Errorf("AAAA of mail: %+v, %v; want none", a, err)
	}
	if _, err = Lookup(ctx, n.server, "no.edge.example", steer.IPv4, paris); err == nil || err.Error() != "no.edge.example: NXDOMAIN" {
		t.Errorf("a name that is not there: %v", err)
	}
	if _, err = Lookup(ctx, n.server, "www.other.example", steer.IPv4, paris); err == nil || err.Error() != "www.other.example: REFUSED" {
		t.Errorf("a zone that is not served: %v", err)
	}
}

func TestLookupEndsWithItsContext(t *testing.T) {
	silent, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = Lookup(ctx, silent.LocalAddr().(*net.UDPAddr).AddrPort(), "www.edge.example", steer.IPv4, paris)
	if err == nil || time.Since(start) > time.Second {
		t.Errorf("%v after %s, want an error at the deadline", err, time.Since(start))
	}
}
