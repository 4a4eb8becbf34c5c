package gslb

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var transferKey = Key{Name: "Copy.example", Algorithm: "hmac-sha256", Secret: []byte("a secret of sixteen octets, and more")}

// version is a zone of a serial, with some records.
func version(serial int, records ...string) string {
	return fmt.Sprintf("@ 300 SOA ns hostmaster %d 3600 1 60 60\n@ 300 NS ns\nns 300 A 192.0.2.53\n%s\n", serial, strings.Join(records, "\n"))
}

func primaryZone(text string, transfer *Transfer) []Zone {
	return []Zone{{Name: "copied.example", Text: text, Transfer: transfer}}
}

// startCopy runs a server that has the zone from a primary, and returns how to
// ask it.
func startCopy(t *testing.T, primary netip.AddrPort, key string) (s *Server, asks func(question string) *dns.Msg) {
	t.Helper()
	s, address, _ := start(t, Config{Keys: []Key{transferKey}, Zones: append(testZones(), Zone{
		Name: "copied.example", Primaries: []Peer{{Address: primary, Key: key}}, Transfer: &Transfer{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	})})
	return s, func(question string) *dns.Msg {
		qname, typ, _ := strings.Cut(question, " ")
		return exchange(t, "udp", address, asker(qname, dns.StringToType[typ]))
	}
}

// await asks until the answer is the one wanted.
func await(t *testing.T, asks func(string) *dns.Msg, question, want string) {
	t.Helper()
	var got *dns.Msg
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = asks(question); text(got.Answer) == want && got.Rcode == dns.RcodeSuccess {
			return
		}
	}
	t.Fatalf("%s: %v", question, got)
}

// A copy comes signed, follows notices by changes only, and is passed on.
func TestCopyFollowsItsPrimary(t *testing.T) {
	free := netip.MustParseAddrPort("127.0.0.1:0")
	primary, _, _ := start(t, Config{Keys: []Key{transferKey}, Listen: []netip.AddrPort{free}, Zones: append(testZones(),
		primaryZone(version(1, "a 300 A 192.0.2.1", "b 300 TXT one"), &Transfer{Keys: []string{transferKey.Name}})...)})
	copied, asks := startCopy(t, primary.Addresses()[0], transferKey.Name)
	await(t, asks, "a.copied.example A", "a.copied.example. 300 A 192.0.2.1")

	next := &Transfer{Keys: []string{transferKey.Name}, Notify: []Peer{{Address: copied.Addresses()[0], Key: transferKey.Name}}}
	if err := primary.SetZones(append(testZones(), primaryZone(version(2, "a 300 A 192.0.2.2", "c 300 TXT two"), next)...)); err != nil {
		t.Fatal(err)
	}
	await(t, asks, "a.copied.example A", "a.copied.example. 300 A 192.0.2.2")
	if got := asks("b.copied.example TXT"); got.Rcode != dns.RcodeNameError {
		t.Errorf("what was removed: %v", got)
	}
	z := copied.view.Load().zones["\x06copied\x07example\x00"]
	if len(z.history) != 1 || len(z.history[0].removed) != 2 || len(z.history[0].added) != 2 {
		t.Errorf("history %v", z.history)
	}
	// New zones for the copy's server leave the copy as it is.
	if err := copied.SetZones(append(testZones(), Zone{Name: "copied.example", Primaries: []Peer{{Address: primary.Addresses()[0], Key: transferKey.Name}}})); err != nil {
		t.Fatal(err)
	}
	if got := asks("a.copied.example A"); text(got.Answer) != "a.copied.example. 300 A 192.0.2.2" {
		t.Errorf("after new zones: %v", got)
	}
}

// A zone whose copy has not come fails, and leaves others alone.
func TestCopyThatDoesNotCome(t *testing.T) {
	_, asks := startCopy(t, netip.MustParseAddrPort("127.0.0.1:1"), "")
	for _, question := range []string{"copied.example SOA", "x.copied.example A"} {
		if got := asks(question); got.Rcode != dns.RcodeServerFailure || got.Authoritative {
			t.Errorf("%s: %v", question, got)
		}
	}
	if got := asks("mail.edge.example A"); got.Rcode != dns.RcodeSuccess {
		t.Errorf("another zone: %v", got)
	}
}

// Requests for a zone, by who asks and how.
func TestTransfersOut(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	large := make([]string, 2000)
	for i := range large {
		large[i] = fmt.Sprintf("h%d 300 TXT %q", i, strings.Repeat("x", 40))
	}
	s, address, _ := start(t, Config{Keys: []Key{transferKey}, Zones: append(testZones(),
		primaryZone(version(1), &Transfer{Allow: loopback, Keys: []string{"copy.example."}})[0],
		Zone{Name: "open.example", Text: version(7), Transfer: &Transfer{Allow: loopback}},
		Zone{Name: "large.example", Text: version(1, large...), Transfer: &Transfer{Allow: loopback}},
		Zone{Name: "far.example", Text: version(1), Transfer: &Transfer{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}},
	)})
	set := func(serial int, records ...string) {
		t.Helper()
		zones := s.cfg.Zones
		zones = slices.Clone(zones)
		zones[len(zones)-3].Text = version(serial, records...)
		if err := s.SetZones(zones); err != nil {
			t.Fatal(err)
		}
	}
	set(8, "a 300 A 192.0.2.1")
	set(9, "b 300 A 192.0.2.1")
	soa := func(serial int) string {
		return fmt.Sprintf("open.example. 300 SOA ns.open.example. hostmaster.open.example. %d 3600 1 60 60", serial)
	}
	const fixed = "b.open.example. 300 A 192.0.2.1; ns.open.example. 300 A 192.0.2.53; open.example. 300 NS ns.open.example."
	tests := []struct {
		about, zone string
		serial      uint32 // 0 for all of it
		key         *Key
		want        string
		records     int
		fails       string
	}{
		{"all", "open.example.", 0, nil, soa(9) + "; " + fixed + "; " + soa(9), 5, ""},
		{"changes", "open.example.", 7, nil, soa(9) + "; " + soa(7) + "; " + soa(8) + "; a.open.example. 300 A 192.0.2.1; " +
			soa(8) + "; a.open.example. 300 A 192.0.2.1; " + soa(9) + "; b.open.example. 300 A 192.0.2.1; " + soa(9), 9, ""},
		{"changes from before all we know", "open.example.", 3, nil, soa(9) + "; " + fixed + "; " + soa(9), 5, ""},
		{"signed, where none is asked for", "open.example.", 0, &transferKey, "", 5, ""},
		{"many messages", "large.example.", 0, nil, "", 2004, ""},
		{"many messages, signed", "large.example.", 0, &transferKey, "", 2004, ""},
		{"signed as it must be", "copied.example.", 0, &transferKey, "", 4, ""},
		{"not signed", "copied.example.", 0, nil, "", 0, "rcode: 5"},
		{"a wrong secret", "copied.example.", 0, &Key{Name: transferKey.Name, Algorithm: "hmac-sha256", Secret: []byte("another secret of the right size")}, "", 0, "bad"},
		{"an unknown key", "copied.example.", 0, &Key{Name: "other.example", Algorithm: "hmac-sha256", Secret: transferKey.Secret}, "", 0, "bad"},
		{"another network", "far.example.", 0, nil, "", 0, "rcode: 5"},
		{"a zone without transfers", "edge.example.", 0, nil, "", 0, "rcode: 5"},
		{"a zone that is not here", "not.example.", 0, nil, "", 0, "rcode: 5"},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			q := new(dns.Msg)
			if tt.serial == 0 {
				q.SetAxfr(tt.zone)
			} else {
				q.SetIxfr(tt.zone, tt.serial, "ns."+tt.zone, "hostmaster."+tt.zone)
			}
			transfer := new(dns.Transfer)
			if tt.key != nil {
				ring, err := newKeyring([]Key{*tt.key})
				if err != nil {
					t.Fatal(err)
				}
				transfer.TsigProvider = ring
				q.SetTsig(dns.CanonicalName(tt.key.Name), dns.HmacSHA256, 300, time.Now().Unix())
			}
			envelopes, err := transfer.In(q, address)
			if err != nil {
				t.Fatal(err)
			}
			var records []dns.RR
			for e := range envelopes {
				if e.Error != nil {
					err = e.Error
				}
				records = append(records, e.RR...)
			}
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("%d records, %v", len(records), err)
				}
				return
			}
			if err != nil || len(records) != tt.records || tt.want != "" && text(records) != tt.want {
				t.Errorf("%d records, %v:\n%s, want\n%s", len(records), err, text(records), tt.want)
			}
		})
	}
	// Over UDP there is only the SOA record.
	q := new(dns.Msg)
	q.SetIxfr("open.example.", 7, "ns.open.example.", "hostmaster.open.example.")
	if got := exchange(t, "udp", address, q); text(got.Answer) != soa(9) {
		t.Errorf("over UDP: %v", got)
	}
}

// Any signed query gets a signed answer, and a wrong signature the error.
func TestSignedQueries(t *testing.T) {
	_, address, _ := start(t, Config{Keys: []Key{transferKey}})
	ring, err := newKeyring([]Key{transferKey})
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		c := dns.Client{Net: network, TsigProvider: ring, Timeout: 5 * time.Second}
		q := asker("mail.edge.example", dns.TypeA)
		q.SetTsig("copy.example.", dns.HmacSHA256, 300, time.Now().Unix())
		got, _, err := c.Exchange(q, address)
		if err != nil || len(got.Answer) != 1 || got.IsTsig() == nil {
			t.Errorf("%s: %v, %v", network, got, err)
		}
		late := asker("mail.edge.example", dns.TypeA)
		late.SetTsig("copy.example.", dns.HmacSHA256, 300, time.Now().Unix()-1000)
		got, _, _ = c.Exchange(late, address)
		if got == nil || got.Rcode != dns.RcodeNotAuth || got.IsTsig() == nil || got.IsTsig().Error != dns.RcodeBadTime {
			t.Errorf("%s, late: %v", network, got)
		}
	}
}

// Notices are taken from primaries only.
func TestNotices(t *testing.T) {
	s, err := New(Config{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
		Zones:  []Zone{{Name: "copied.example", Primaries: []Peer{{Address: netip.MustParseAddrPort("192.0.2.1:53")}}}, {Name: "own.example", Text: version(1)}},
	}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		zone, from string
		rcode      int
	}{
		{"copied.example.", "192.0.2.1", dns.RcodeSuccess}, {"copied.example.", "192.0.2.1", dns.RcodeSuccess},
		{"copied.example.", "192.0.2.2", dns.RcodeRefused}, {"own.example.", "192.0.2.1", dns.RcodeNotAuth},
	} {
		q := new(dns.Msg)
		q.SetNotify(tt.zone)
		wire, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		out := s.respond(s.view.Load(), request{msg: wire, from: netip.MustParseAddr(tt.from)}, nil)
		if got := unpack(t, out.msg); got.Rcode != tt.rcode || got.Opcode != dns.OpcodeNotify || got.Id != q.Id {
			t.Errorf("%s from %s: %v", tt.zone, tt.from, got)
		}
	}
	if got := len(s.links["\x06copied\x07example\x00"].kick); got != 1 {
		t.Errorf("%d looks wanted, want 1", got)
	}
}
