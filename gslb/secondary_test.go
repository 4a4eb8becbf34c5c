package gslb

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// fakePrimary has a zone of a serial. To requests for changes it gives those of
// changes, after the first SOA record and before the last.
type fakePrimary struct {
	testing.TB
	serial  atomic.Int32
	changes atomic.Pointer[[]string]
	whole   atomic.Int32 // transfers of all of it
}

func (p *fakePrimary) records(lines ...string) (records []dns.RR) {
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			p.Error(err)
			continue
		}
		records = append(records, rr)
	}
	return records
}

func (p *fakePrimary) soa(serial int32) string {
	return fmt.Sprintf("copied.example. 300 SOA ns.elsewhere.example. h.elsewhere.example. %d 3600 1 60 60", serial)
}

func (p *fakePrimary) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	serial := p.serial.Load()
	soa := p.soa(serial)
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative = true
	switch changes := p.changes.Load(); {
	case q.Question[0].Qtype == dns.TypeSOA:
		m.Answer = p.records(soa)
	case q.Question[0].Qtype == dns.TypeIXFR && changes == nil:
		m.Rcode = dns.RcodeNotImplemented
	case q.Question[0].Qtype == dns.TypeIXFR:
		m.Answer = p.records(append(append([]string{soa}, *changes...), soa)...)
	default:
		p.whole.Add(1)
		m.Answer = p.records(soa, "copied.example. 300 NS ns.elsewhere.example.",
			"A.copied.example. 300 TXT same", fmt.Sprintf("b.copied.example. 300 TXT %d", serial), soa)
	}
	if err := w.WriteMsg(m); err != nil {
		p.Error(err)
	}
}

func startFake(t *testing.T, h dns.Handler) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().(*net.TCPAddr).AddrPort()
	packets, err := net.ListenPacket("udp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: listener, Handler: h}, {PacketConn: packets, Handler: h}} {
		started, ended := make(chan struct{}), make(chan error, 1)
		s.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			s.Shutdown()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	return address
}

// Changes are taken if they fit, in whatever case the primary spells names; if
// they do not, or the primary knows of none, the whole zone is taken instead.
func TestChangesOrTheWholeZone(t *testing.T) {
	p := &fakePrimary{TB: t}
	p.serial.Store(1)
	s, asks := startCopy(t, startFake(t, p), "")
	await(t, asks, "b.copied.example TXT", `b.copied.example. 300 TXT "1"`)
	for i, tt := range []struct {
		about   string
		changes func(from, to string) *[]string
		whole   int32
	}{
		{"none known", func(string, string) *[]string { return nil }, 2},
		{"that fit", func(from, to string) *[]string {
			return &[]string{from, "a.COPIED.example. 300 TXT same", "B.copied.example. 300 TXT 2", to, "A.copied.example. 300 TXT same", "b.copied.EXAMPLE. 300 TXT 3"}
		}, 2},
		{"that remove what is not there", func(from, to string) *[]string {
			return &[]string{from, "b.copied.example. 300 TXT other", to, "b.copied.example. 300 TXT 4"}
		}, 3},
		{"of another version", func(_, to string) *[]string {
			return &[]string{p.soa(77), "b.copied.example. 300 TXT 4", to, "b.copied.example. 300 TXT 5"}
		}, 4},
	} {
		serial := int32(i) + 2
		p.changes.Store(tt.changes(p.soa(serial-1), p.soa(serial)))
		p.serial.Store(serial)
		s.mu.Lock()
		s.links[wire(t, "copied.example")].kick <- struct{}{}
		s.mu.Unlock()
		await(t, asks, "b.copied.example TXT", fmt.Sprintf(`b.copied.example. 300 TXT "%d"`, serial))
		if got := p.whole.Load(); got != tt.whole {
			t.Errorf("changes %s: the zone was taken whole %d times, want %d", tt.about, got, tt.whole)
		}
		if got := asks("a.copied.example TXT"); !strings.Contains(text(got.Answer), "same") {
			t.Errorf("changes %s: %v", tt.about, got)
		}
	}
}
