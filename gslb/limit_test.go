package gslb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestLimiter(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	l := newLimiter(RateLimit{Responses: 10, Slip: 2, Exempt: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, start)
	sent := func(from string, answer uint64, at time.Duration, n int) (count [3]int) {
		for i := range n {
			count[l.act(netip.MustParseAddr(from), answer, start.Add(at), uint64(i))]++
		}
		return count
	}
	tests := []struct {
		about, from string
		answer      uint64
		at          time.Duration
		n           int
		want        [3]int
	}{
		{"a burst of a second, then every other slips", "192.0.2.1", 1, time.Second, 30, [3]int{10, 10, 10}},
		{"the network is one client", "192.0.2.200", 1, time.Second, 4, [3]int{0, 2, 2}},
		{"another network", "192.0.3.1", 1, time.Second, 10, [3]int{10, 0, 0}},
		{"another answer", "192.0.2.1", 2, time.Second, 10, [3]int{10, 0, 0}},
		{"an exempt network", "198.51.100.7", 1, time.Second, 50, [3]int{50, 0, 0}},
		{"half a second later", "192.0.2.1", 1, 1500 * time.Millisecond, 10, [3]int{5, 2, 3}},
		{"long after, no more than a burst", "192.0.2.1", 1, time.Hour, 30, [3]int{10, 10, 10}},
		{"IPv6", "2001:db8::1", 1, time.Second, 12, [3]int{10, 1, 1}},
		{"its /56", "2001:db8:0:ff::1", 1, time.Second, 2, [3]int{0, 1, 1}},
		{"another /56", "2001:db8:0:100::1", 1, time.Second, 10, [3]int{10, 0, 0}},
	}
	for _, tt := range tests {
		if got := sent(tt.from, tt.answer, tt.at, tt.n); got != tt.want {
			t.Errorf("%s: %v sent, slipped and dropped, want %v", tt.about, got, tt.want)
		}
	}
	if newLimiter(RateLimit{}, start).act(netip.Addr{}, 1, start, 1) != sendAnswer {
		t.Error("limited without a limit")
	}
}

// However many clients there are, none is limited that asks seldom.
func TestLimiterUnderManyClients(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	l := newLimiter(RateLimit{Responses: 10, Slip: 2}, start)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 1_000_000 {
		from := netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1})
		if l.act(from, random.Uint64(), start.Add(time.Duration(i)*time.Microsecond), 0) != sendAnswer {
			t.Fatalf("query %d was limited", i)
		}
	}
}

// Over the wire: what is over the rate slips or is dropped, on both paths, and a
// client that shows its cookie gets all.
func TestRateLimit(t *testing.T) {
	for _, tt := range []struct {
		qtype uint16
		slip  int
	}{{dns.TypeA, 1}, {dns.TypeANY, 1}, {dns.TypeA, 0}, {dns.TypeANY, 0}} {
		t.Run(fmt.Sprintf("%s slip %d", dns.Type(tt.qtype), tt.slip), func(t *testing.T) {
			_, address, _ := start(t, Config{RateLimit: RateLimit{Responses: 1, Slip: tt.slip}})
			q := asker("mail.edge.example", tt.qtype)
			q.SetEdns0(1232, false)
			q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}}
			first := exchange(t, "udp", address, q)
			if first.Truncated || len(first.Answer) != 1 {
				t.Fatalf("first: %v", first)
			}
			c := dns.Client{Timeout: 200 * time.Millisecond}
			second, _, err := c.Exchange(q, address)
			switch {
			case tt.slip == 0 && err == nil:
				t.Errorf("second: %v", second)
			case tt.slip == 1 && (err != nil || !second.Truncated || len(second.Answer) != 0 || second.IsEdns0() == nil):
				t.Errorf("second: %v, %v", second, err)
			}
			if got := exchange(t, "tcp", address, q); got.Truncated || len(got.Answer) != 1 {
				t.Errorf("over TCP: %v", got)
			}
			q.IsEdns0().Option[0].(*dns.EDNS0_COOKIE).Cookie = first.IsEdns0().Option[0].(*dns.EDNS0_COOKIE).Cookie
			for range 3 {
				if got := exchange(t, "udp", address, q); got.Truncated || len(got.Answer) != 1 {
					t.Errorf("with a cookie: %v", got)
				}
			}
		})
	}
}
