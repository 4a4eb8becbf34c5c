package conformancedns

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/gslb"
	"anyedge/internal/daemon"
	"anyedge/test/bench/rig"

	"github.com/miekg/dns"
)

const (
	zones    = 60
	perZone  = 250
	seed     = 8906
	port     = 15355
	skipText = "set ANYEDGE_CONFORMANCE_DNS=1, or run make conformance-dns"
)

var (
	ours = netip.AddrFrom4([4]byte{127, 0, 79, 1})
	knot = netip.AddrFrom4([4]byte{127, 0, 79, 2})
	nsd  = netip.AddrFrom4([4]byte{127, 0, 79, 3})
)

// start runs anyedge's server with zone files.
func start(t *testing.T, files map[string]string) {
	t.Helper()
	var all []gslb.Zone
	for name, file := range files {
		all = append(all, gslb.Zone{Name: name, File: file})
	}
	serve(t, all)
}

// serve runs anyedge's server with zones.
func serve(t *testing.T, all []gslb.Zone) *gslb.Server {
	t.Helper()
	s, err := gslb.New(gslb.Config{
		Listen: []netip.AddrPort{netip.AddrPortFrom(ours, port)}, Zones: all, NSID: "conformance",
	}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	return s
}

// startPeer runs another server and waits until it answers for every zone.
func startPeer(t *testing.T, address netip.Addr, files map[string]string, tool string, args ...string) {
	t.Helper()
	path := find(t, tool)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	child, err := daemon.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		child.Stop(ctx)
	})
	deadline := time.Now().Add(20 * time.Second)
	for name := range files {
		for {
			got, err := ask(address, name, dns.TypeSOA)
			if err == nil && got.Rcode == dns.RcodeSuccess && len(got.Answer) == 1 {
				break
			}
			if time.Now().After(deadline) {
				text, _ := os.ReadFile(log.Name())
				t.Fatalf("%s does not serve %s: %v, %v\n%s", tool, name, got, err, text)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// find returns the path of a tool. Without it the test fails, or is skipped where
// what is not installed is to be left out.
func find(t *testing.T, tool string) string {
	t.Helper()
	path, err := rig.Find(tool)
	switch {
	case err == nil:
	case os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "installed":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
	return path
}

func ask(server netip.Addr, qname string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(qname, qtype)
	q.RecursionDesired = false
	q.SetEdns0(1232, false)
	c := dns.Client{Timeout: 2 * time.Second}
	got, _, err := c.Exchange(q, netip.AddrPortFrom(server, port).String())
	return got, err
}

// maker makes a zone.
type maker struct {
	*rand.Rand
	apex  string
	names []string // relative to the apex
}

var labels = []string{"a", "b", "c", "www", "_dmarc", "x-1"}

func (m *maker) name() string {
	n := labels[m.IntN(len(labels))]
	for range m.IntN(3) {
		n = labels[m.IntN(len(labels))] + "." + n
	}
	return n
}

// target is a name for records to point to: in the zone or elsewhere.
func (m *maker) target() string {
	switch m.IntN(4) {
	case 0:
		return "elsewhere.invalid."
	case 1:
		return "nothing." + m.apex
	}
	if len(m.names) == 0 {
		return m.name() + "." + m.apex
	}
	return m.names[m.IntN(len(m.names))] + "." + m.apex
}

// records is the text of a zone. It may be one that no server should take.
func (m *maker) records() string {
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN %s\n$TTL 300\n@ 600 SOA ns1 hostmaster 1 3600 900 604800 60\n@ NS ns1\n@ NS ns.elsewhere.invalid.\nns1 A 192.0.2.53\n", m.apex)
	for range 12 + m.IntN(12) {
		n := m.name()
		if m.IntN(6) == 0 {
			n = "*." + n
		}
		m.names = append(m.names, n)
		switch m.IntN(12) {
		case 0, 1:
			fmt.Fprintf(&b, "%s A 192.0.2.%d\n%s A 192.0.2.%d\n", n, m.IntN(250), n, m.IntN(250))
		case 2:
			fmt.Fprintf(&b, "%s AAAA 2001:db8::%x\n%s 60 TXT \"some text\"\n", n, m.IntN(1000), n)
		case 3:
			fmt.Fprintf(&b, "%s MX 10 %s\n", n, m.target())
		case 4:
			fmt.Fprintf(&b, "%s SRV 1 2 53 %s\n%s CAA 0 issue \"ca.invalid\"\n", n, m.target(), n)
		case 5:
			fmt.Fprintf(&b, "%s HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1\n%s SVCB 0 %s\n", n, n, m.target())
		case 6, 7:
			fmt.Fprintf(&b, "%s CNAME %s\n", n, m.target())
		case 8:
			fmt.Fprintf(&b, "%s DNAME %s\n", n, m.target())
		case 9:
			fmt.Fprintf(&b, "%s NS ns.%s\nns.%s A 192.0.2.54\n", n, n, n)
		case 10:
			fmt.Fprintf(&b, "%s NS ns1\n%s NS ns.elsewhere.invalid.\n%s DS 1 13 2 %064d\n", n, n, n, 1)
		case 11:
			fmt.Fprintf(&b, "%s TYPE65280 \\# 3 010203\n%s PTR %s\n", n, n, m.target())
		}
	}
	return b.String()
}

// makeZones writes zones that anyedge takes, and returns their files and names in
// them.
func makeZones(t *testing.T, dir string, random *rand.Rand) (files map[string]string, names map[string][]string) {
	t.Helper()
	files, names = make(map[string]string), make(map[string][]string)
	for tries := 0; len(files) < zones; tries++ {
		if tries == 100*zones {
			t.Fatal("hardly any zone is taken")
		}
		apex := fmt.Sprintf("z%d.test.", len(files))
		m := maker{Rand: random, apex: apex}
		text := m.records()
		if _, err := gslb.New(gslb.Config{
			Listen: []netip.AddrPort{{}}, Zones: []gslb.Zone{{Name: apex, Text: text}},
		}, slog.New(slog.DiscardHandler), nil); err != nil {
			continue
		}
		file := filepath.Join(dir, apex+"zone")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files[apex], names[apex] = file, m.names
	}
	return files, names
}

var types = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeMX, dns.TypeNS, dns.TypeSOA, dns.TypeCNAME, dns.TypeDNAME,
	dns.TypeSRV, dns.TypeCAA, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeDS, dns.TypePTR, 65280, 65281}

// question is one at random.
func question(random *rand.Rand, apex string, names []string) (string, uint16) {
	n := names[random.IntN(len(names))] + "." + apex
	switch random.IntN(8) {
	case 0:
		n = "beside." + apex
	case 1:
		n = "x." + n
	case 2:
		n = "x.y." + n
	case 3:
		n = strings.Replace(n, "*", "any", 1)
	case 4:
		if _, parent, ok := strings.Cut(n, "."); ok && dns.IsSubDomain(apex, parent) {
			n = parent
		}
	}
	return n, types[random.IntN(len(types))]
}

func TestComparedWithOthers(t *testing.T) {
	if os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "" {
		t.Skip(skipText)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(seed, 1))
	files, names := makeZones(t, dir, random)
	start(t, files)
	startPeer(t, knot, files, "knotd", "-c", knotConfig(t, dir, files))
	startPeer(t, nsd, files, "nsd", "-d", "-c", nsdConfig(t, dir, files))

	apexes := slices.Sorted(func(yield func(string) bool) {
		for apex := range files {
			if !yield(apex) {
				return
			}
		}
	})
	asked, different := 0, 0
	for _, apex := range apexes {
		for range perZone {
			qname, qtype := question(random, apex, names[apex])
			our, err := ask(ours, qname, qtype)
			if err != nil {
				t.Fatalf("%s %s: %v", qname, dns.Type(qtype), err)
			}
			for _, peer := range []struct {
				name    string
				address netip.Addr
			}{{"knot", knot}, {"nsd", nsd}} {
				their, err := ask(peer.address, qname, qtype)
				if err != nil {
					t.Fatalf("%s: %s %s: %v", peer.name, qname, dns.Type(qtype), err)
				}
				asked++
				a, b := essence(our), essence(their)
				if a == b {
					continue
				}
				if different++; different <= 10 {
					text, _ := os.ReadFile(files[apex])
					t.Errorf("%s %s\nanyedge %s\n%s %s\nzone\n%s", qname, dns.Type(qtype), a, peer.name, b, text)
				}
			}
		}
	}
	t.Logf("%d answers compared, %d different", asked, different)
}

// essence is what two right answers have in common: rcode, AA, the records of the
// answer, and those that say why there are none or who has them.
func essence(m *dns.Msg) string {
	lines := func(records []dns.RR) []string {
		var all []string
		for _, rr := range records {
			all = append(all, strings.ToLower(strings.Join(strings.Fields(rr.String()), " ")))
		}
		slices.Sort(all)
		return slices.Compact(all) // NSD goes around in circles a few times
	}
	var authority []dns.RR
	for _, rr := range m.Ns {
		// NS records beside an answer are left out: they are a courtesy.
		if rr.Header().Rrtype == dns.TypeSOA || rr.Header().Rrtype == dns.TypeNS && (!m.Authoritative || len(m.Answer) == 0) {
			authority = append(authority, rr)
		}
	}
	return fmt.Sprintf("%s aa=%v tc=%v\n  answer %q\n  authority %q", dns.RcodeToString[m.Rcode], m.Authoritative, m.Truncated, lines(m.Answer), lines(authority))
}

func knotConfig(t *testing.T, dir string, files map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server:\n    listen: %s@%d\n    rundir: %s\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n", knot, port, dir)
	fmt.Fprintf(&b, "database:\n    storage: %s/knot\nlog:\n  - target: stderr\n    any: error\nzone:\n", dir)
	for name, file := range files {
		fmt.Fprintf(&b, "  - domain: %s\n    file: %s\n    journal-content: none\n    zonefile-sync: -1\n    semantic-checks: off\n", name, file)
	}
	return write(t, filepath.Join(dir, "knot.conf"), b.String())
}

func nsdConfig(t *testing.T, dir string, files map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server:\n  ip-address: %s@%d\n  server-count: 1\n  username: \"\"\n  chroot: \"\"\n  zonesdir: %s\n  database: \"\"\n  pidfile: \"\"\n", nsd, port, dir)
	fmt.Fprintf(&b, "  xfrdfile: %[1]s/nsd.xfrd\n  xfrdir: %[1]s\n  zonelistfile: %[1]s/nsd.zones\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n", dir)
	for name, file := range files {
		fmt.Fprintf(&b, "zone:\n  name: %s\n  zonefile: %s\n", name, file)
	}
	return write(t, filepath.Join(dir, "nsd.conf"), b.String())
}

func write(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// run runs a server until the test ends, and returns when it is ready.
func run(t *testing.T, s *gslb.Server) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
}
