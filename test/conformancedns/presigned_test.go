package conformancedns

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"anyedge/gslb"

	"github.com/miekg/dns"
)

// perPresigned is how many questions are asked about each zone and version.
const perPresigned = 60

// primary is a Knot that signs.
var primary = netip.AddrFrom4([4]byte{127, 0, 79, 5})

// Ways that the primary signs: each zone has one of them. With opt-out, unsigned
// delegations have no record in the chain, and answers that come from such a gap
// are not secure.
var policies = []string{"nsec", "nsec3", "optout"}

// transfers counts what anyedge says of them.
type transfers struct {
	slog.Handler
	taken, whole atomic.Int64
}

func (h *transfers) Enabled(context.Context, slog.Level) bool { return true }

func (h *transfers) Handle(_ context.Context, r slog.Record) error {
	switch r.Message {
	case "zone transferred":
		h.taken.Add(1)
	case "changes of a zone not taken, all of it is":
		h.whole.Add(1)
	}
	return nil
}

// TestPresigned has Knot sign random zones, anyedge and another Knot copy them, and
// NSD copy the copies of anyedge: at first as a whole, then by changes. Each answer
// with signatures is compared with those of the others and validated by Unbound,
// and anyedge has to have just what the primary has.
func TestPresigned(t *testing.T) {
	if os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "" {
		t.Skip(skipText)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(seed, 5))
	files, names := makeZones(t, dir, random)
	for apex, file := range files {
		if !signable(t, apex, file) {
			delete(files, apex)
		}
	}
	apexes := slices.Sorted(maps.Keys(files))
	for _, each := range []string{"primary", "secondary"} {
		if err := os.MkdirAll(filepath.Join(dir, each), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	startPeer(t, primary, files, "knotd", "-c", write(t, filepath.Join(dir, "primary.conf"), signingConfig(dir, apexes, files)))
	startPeer(t, knot, files, "knotd", "-c", write(t, filepath.Join(dir, "secondary.conf"), copyingKnot(dir, apexes)))
	log := new(transfers)
	var zones []gslb.Zone
	for _, apex := range apexes {
		zones = append(zones, gslb.Zone{
			Name: apex, Primaries: []gslb.Peer{{Address: netip.AddrPortFrom(primary, port), Key: keyName}},
			Transfer: &gslb.Transfer{Keys: []string{keyName}, Notify: []gslb.Peer{{Address: netip.AddrPortFrom(nsd, port), Key: keyName}}},
		})
	}
	s, err := gslb.New(gslb.Config{
		Listen: []netip.AddrPort{netip.AddrPortFrom(ours, port)}, Zones: zones,
		Keys: []gslb.Key{{Name: keyName, Algorithm: "hmac-sha256", Secret: secret}},
	}, slog.New(log), nil)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	startPeer(t, nsd, files, "nsd", "-d", "-c", write(t, filepath.Join(dir, "nsd.conf"), copyingNSD(dir, apexes)))

	serials, before := make(map[string]uint32), make(map[string][]string)
	for _, version := range []string{"whole", "changed"} {
		for _, apex := range apexes {
			last := serials[apex]
			serials[apex] = awaitSame(t, apex, last)
			if last != 0 {
				changesLead(t, apex, last, before[apex])
			}
		}
		t.Run(version, func(t *testing.T) {
			copiesAreWhole(t, apexes, before)
			compareSecure(t, random, apexes, names)
			startPeer(t, unbound, map[string]string{"ready.": ""}, "unbound", "-d", "-c", presignedUnbound(t, dir, apexes))
			validatePresigned(t, random, apexes, names)
		})
		if version == "whole" {
			for _, apex := range apexes {
				change(t, apex, names[apex][0])
				names[apex] = append(names[apex], "new", "x.y.new")
			}
		}
	}
	if taken, whole := log.taken.Load(), log.whole.Load(); whole > 0 || taken < 2*int64(len(apexes)) {
		t.Errorf("%d transfers, %d whole instead of changes", taken, whole)
	}
}

// signable reports whether Knot signs a zone: not with NS beside DNAME records.
func signable(t *testing.T, apex, file string) bool {
	t.Helper()
	text, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	types := make(map[string]uint16)
	parser := dns.NewZoneParser(text, apex, file)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		h := rr.Header()
		if h.Rrtype != dns.TypeNS && h.Rrtype != dns.TypeDNAME {
			continue
		}
		if other, both := types[h.Name]; both && other != h.Rrtype {
			return false
		}
		types[h.Name] = h.Rrtype
	}
	return true
}

// change adds names to a zone at its primary, and removes one.
func change(t *testing.T, apex, remove string) {
	t.Helper()
	m := new(dns.Msg)
	m.SetUpdate(apex)
	for _, text := range []string{"new 300 A 192.0.2.99", "x.y.new 300 TXT new", "*.w.new 300 CNAME new", "u.new 300 NS ns.elsewhere.invalid."} {
		rr, err := dns.NewRR("$ORIGIN " + apex + "\n" + text)
		if err != nil {
			t.Fatal(err)
		}
		m.Insert([]dns.RR{rr})
	}
	m.RemoveName([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: remove + "." + apex}}})
	m.SetTsig(dns.Fqdn(keyName), dns.HmacSHA256, 300, time.Now().Unix())
	c := dns.Client{Net: "tcp", Timeout: 10 * time.Second, TsigSecret: map[string]string{dns.Fqdn(keyName): base64.StdEncoding.EncodeToString(secret)}}
	got, _, err := c.Exchange(m, netip.AddrPortFrom(primary, port).String())
	if err != nil || got.Rcode != dns.RcodeSuccess {
		t.Fatalf("change of %s: %v, %v", apex, got, err)
	}
}

// awaitSame waits until all servers have one version of a zone, after a serial.
func awaitSame(t *testing.T, apex string, after uint32) uint32 {
	t.Helper()
	var have []uint32
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		have = nil
		for _, server := range []netip.Addr{primary, ours, knot, nsd} {
			if m, err := ask(server, apex, dns.TypeSOA); err == nil && len(m.Answer) == 1 {
				have = append(have, m.Answer[0].(*dns.SOA).Serial)
			}
		}
		if len(have) == 4 && have[0] != after && len(slices.Compact(slices.Clone(have))) == 1 {
			return have[0]
		}
	}
	t.Fatalf("%s: serials %v", apex, have)
	return 0
}

// changesLead checks that what anyedge gives as changes leads from the records of a
// serial to what it has now.
func changesLead(t *testing.T, apex string, serial uint32, before []string) {
	t.Helper()
	m := new(dns.Msg)
	m.SetIxfr(apex, serial, "ns1."+apex, "hostmaster."+apex)
	lines := transferOf(t, ours, m)
	whole := transferred(t, ours, apex)
	soa := func(i int) bool { return strings.Contains(lines[i], "\tSOA\t") }
	if len(lines) < 4 || !soa(1) {
		t.Fatalf("%s: no changes since %d:\n%s", apex, serial, strings.Join(lines, "\n"))
	}
	have := slices.Clone(before)
	removes := false
	for i, line := range lines[1 : len(lines)-1] {
		if soa(i + 1) {
			removes = !removes
			continue
		}
		at := slices.Index(have, line)
		switch {
		case removes && at >= 0:
			have = slices.Delete(have, at, at+1)
		case !removes && at < 0:
			have = append(have, line)
		default:
			t.Fatalf("%s: %s cannot be changed so", apex, line)
		}
	}
	withoutSOA := func(lines []string) []string {
		lines = slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "\tSOA\t") })
		return slices.Sorted(slices.Values(lines))
	}
	if got, want := withoutSOA(have), withoutSOA(whole); !slices.Equal(got, want) {
		t.Fatalf("%s: changes lead to\n%s\nand not to\n%s", apex, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// copiesAreWhole compares the zones at the primary and at anyedge, which may be read
// from a file too, and notes them.
func copiesAreWhole(t *testing.T, apexes []string, zones map[string][]string) {
	t.Helper()
	dir := t.TempDir()
	for _, apex := range apexes {
		want, got := transferred(t, primary, apex), transferred(t, ours, apex)
		if !slices.Equal(want, got) {
			t.Fatalf("%s\n%s\nis copied as\n%s", apex, strings.Join(want, "\n"), strings.Join(got, "\n"))
		}
		if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, "\tRRSIG\t") }) {
			t.Fatalf("%s is not signed:\n%s", apex, strings.Join(got, "\n"))
		}
		zones[apex] = got
		file := write(t, filepath.Join(dir, apex+"zone"), strings.Join(slices.Compact(slices.Clone(got)), "\n")+"\n")
		if _, err := gslb.New(gslb.Config{Listen: []netip.AddrPort{{}}, Zones: []gslb.Zone{{Name: apex, File: file}}}, slog.New(slog.DiscardHandler), nil); err != nil {
			t.Errorf("from a file: %v", err)
		}
	}
}

// transferred returns the records of a zone in order.
func transferred(t *testing.T, server netip.Addr, apex string) (lines []string) {
	t.Helper()
	q := new(dns.Msg)
	q.SetAxfr(apex)
	lines = transferOf(t, server, q)
	slices.Sort(lines)
	return lines
}

// transferOf returns the records that answer a request for a zone or its changes.
func transferOf(t *testing.T, server netip.Addr, q *dns.Msg) (lines []string) {
	t.Helper()
	q.SetTsig(dns.Fqdn(keyName), dns.HmacSHA256, 300, time.Now().Unix())
	transfer := dns.Transfer{TsigSecret: map[string]string{dns.Fqdn(keyName): base64.StdEncoding.EncodeToString(secret)}}
	envelopes, err := transfer.In(q, netip.AddrPortFrom(server, port).String())
	if err != nil {
		t.Fatal(err)
	}
	for e := range envelopes {
		if e.Error != nil {
			t.Fatalf("%s from %v: %v", q.Question[0].Name, server, e.Error)
		}
		for _, rr := range e.RR {
			lines = append(lines, rr.String())
		}
	}
	return lines
}

// asking asks servers over one connection each.
type asking map[netip.Addr]*dns.Conn

func (a asking) ask(t *testing.T, server netip.Addr, qname string, qtype uint16, secure bool) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(qname, qtype)
	q.RecursionDesired = false
	q.SetEdns0(1232, secure)
	c := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	for fresh := false; ; fresh = true {
		if a[server] == nil {
			conn, err := c.Dial(netip.AddrPortFrom(server, port).String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			a[server] = conn
		}
		got, _, err := c.ExchangeWithConn(q, a[server])
		if err == nil {
			return got
		}
		if a[server] = nil; fresh {
			t.Fatalf("%s %s at %v: %v", qname, dns.Type(qtype), server, err)
		}
	}
}

// secureTypes are asked for beside types.
var secureTypes = []uint16{dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM, dns.TypeRRSIG, dns.TypeDNSKEY, dns.TypeDS}

func secureQuestion(random *rand.Rand, apex string, names []string) (string, uint16) {
	qname, qtype := question(random, apex, names)
	switch random.IntN(8) {
	case 0:
		qtype = secureTypes[random.IntN(len(secureTypes))]
	case 1:
		qname = apex
	}
	return qname, qtype
}

func compareSecure(t *testing.T, random *rand.Rand, apexes []string, names map[string][]string) {
	servers := make(asking)
	asked, different := 0, 0
	for _, apex := range apexes {
		for range perPresigned {
			qname, qtype := secureQuestion(random, apex, names[apex])
			for _, secure := range []bool{true, false} {
				our := servers.ask(t, ours, qname, qtype, secure)
				for _, peer := range []struct {
					name    string
					address netip.Addr
				}{{"knot", knot}, {"nsd", nsd}} {
					their := servers.ask(t, peer.address, qname, qtype, secure)
					asked++
					a, b := secureEssence(our), secureEssence(their)
					if a == b || alike(qtype, our, their, peer.address == nsd) {
						continue
					}
					if different++; different <= 10 {
						t.Errorf("%s %s, DO %v\nanyedge %s\n%s %s", qname, dns.Type(qtype), secure, a, peer.name, b)
					}
				}
			}
		}
	}
	t.Logf("%d answers compared, %d different", asked, different)
}

// alike reports whether two answers differ only in what is left to the server.
func alike(qtype uint16, our, their *dns.Msg, nsd bool) bool {
	a, b := secureLines(our.Answer), secureLines(their.Answer)
	switch {
	case nsd && (qtype == dns.TypeNSEC || qtype == dns.TypeNSEC3):
		return true // it sees other names as aliases than Knot and BIND do
	case our.Rcode != their.Rcode || our.Authoritative != their.Authoritative:
		return false
	case qtype == dns.TypeRRSIG && len(a) > 0: // some may stand for all, RFC 8482 section 7
		return len(b) > 0
	case qtype == dns.TypeNSEC && len(their.Ns) == 0: // Knot does not prove what an NSEC record is the proof of
		return slices.Equal(a, b)
	case !nsd:
		return false
	}
	// NSD adds records for a wildcard that is asked for as such, and leaves out some
	// that are at zone cuts.
	others := func(m *dns.Msg) []string {
		return secureLines(slices.DeleteFunc(slices.Clone(m.Ns), func(rr dns.RR) bool {
			rtype := rr.Header().Rrtype
			if sig, ok := rr.(*dns.RRSIG); ok {
				rtype = sig.TypeCovered
			}
			return rtype == dns.TypeNSEC || rtype == dns.TypeNSEC3
		}))
	}
	return slices.Equal(a, b) && slices.Equal(others(our), others(their))
}

func secureLines(records []dns.RR) []string {
	var all []string
	for _, rr := range records {
		all = append(all, strings.Join(strings.Fields(strings.ToLower(rr.String())), " "))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// secureEssence is essence with all that proves it.
func secureEssence(m *dns.Msg) string {
	authority := slices.DeleteFunc(slices.Clone(m.Ns), func(rr dns.RR) bool {
		sig, _ := rr.(*dns.RRSIG)
		courtesy := rr.Header().Rrtype == dns.TypeNS || sig != nil && sig.TypeCovered == dns.TypeNS
		return courtesy && m.Authoritative && len(m.Answer) > 0
	})
	return fmt.Sprintf("%s aa=%v tc=%v\n  answer %s\n  authority %s", dns.RcodeToString[m.Rcode], m.Authoritative, m.Truncated,
		strings.Join(secureLines(m.Answer), "\n    "), strings.Join(secureLines(authority), "\n    "))
}

// validatePresigned asks Unbound, which knows the keys of the zones.
func validatePresigned(t *testing.T, random *rand.Rand, apexes []string, names map[string][]string) {
	servers := make(asking)
	kinds := make(map[string]int)
	asked, failed := 0, 0
	for i, apex := range apexes {
		var questions []dns.Question
		for range perPresigned {
			qname, qtype := question(random, apex, names[apex])
			questions = append(questions, dns.Question{Name: qname, Qtype: qtype})
		}
		for _, n := range names[apex] {
			for _, qtype := range types {
				if strings.HasPrefix(n, "*.") {
					questions = append(questions, dns.Question{Name: "any" + n[1:] + "." + apex, Qtype: qtype})
				}
			}
		}
		for _, q := range questions {
			qname, qtype := q.Name, q.Qtype
			plain := servers.ask(t, ours, qname, qtype, false)
			kind := kindOf(qname, qtype, plain)
			if kind == "" || qtype == dns.TypeCNAME || qtype == dns.TypeDNAME || qtype == dns.TypeDS && qname == apex {
				continue // see TestUnboundValidates; there is no parent to ask
			}
			got, err := validated(qname, qtype)
			if err != nil {
				t.Fatalf("%s %s: %v", qname, dns.Type(qtype), err)
			}
			asked++
			kinds[policies[i%len(policies)]+" "+kind]++
			secure := got.AuthenticatedData || policies[i%len(policies)] == "optout"
			if got.Rcode == plain.Rcode && secure && records(got) == records(plain) {
				continue
			}
			if failed++; failed <= 5 {
				t.Errorf("%s %s (%s)\nanyedge %s\nunbound %v", qname, dns.Type(qtype), kind, essence(plain), got)
			}
		}
	}
	t.Logf("%d answers validated, %d not: %v", asked-failed, failed, kinds)
	for _, policy := range policies {
		for _, kind := range []string{"answer", "no data", "no name", "DNAME", "wildcard"} {
			if kinds[policy+" "+kind] < 5 {
				t.Errorf("%d of the kind %s %q: too few", kinds[policy+" "+kind], policy, kind)
			}
		}
	}
}

func signingConfig(dir string, apexes []string, files map[string]string) string {
	var b strings.Builder
	b.WriteString(knotHead(dir, "primary", primary))
	for i, address := range []netip.Addr{ours, knot} {
		fmt.Fprintf(&b, "remote:\n  - id: copy%d\n    address: %s@%d\n    via: %s\n    key: %s\n", i, address, port, primary, keyName)
	}
	b.WriteString("policy:\n")
	for i, id := range policies {
		fmt.Fprintf(&b, "  - id: %s\n    algorithm: ecdsap256sha256\n    single-type-signing: on\n    nsec3: %v\n", id, i > 0)
		if i > 0 {
			fmt.Fprintf(&b, "    nsec3-opt-out: %v\n    nsec3-iterations: 5\n    nsec3-salt-length: 4\n", id == "optout")
		}
	}
	b.WriteString("zone:\n")
	for i, apex := range apexes {
		fmt.Fprintf(&b, "  - domain: %s\n    file: %s\n    zonefile-sync: -1\n    zonefile-load: difference\n    journal-content: changes\n    semantic-checks: off\n", apex, files[apex])
		fmt.Fprintf(&b, "    dnssec-signing: on\n    dnssec-policy: %s\n    notify: [copy0, copy1]\n    acl: all\n", policies[i%len(policies)])
	}
	return b.String()
}

// knotHead is the part of Knot's config that all of them have.
func knotHead(dir, name string, address netip.Addr) string {
	key := base64.StdEncoding.EncodeToString(secret)
	return fmt.Sprintf(`server:
    listen: %[1]s@%[2]d
    rundir: %[3]s/%[4]s
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: %[3]s/%[4]s
log:
  - target: stderr
    any: error
key:
  - id: %[5]s
    algorithm: hmac-sha256
    secret: %[6]s
acl:
  - id: all
    key: %[5]s
    action: [transfer, notify, update]
`, address, port, dir, name, keyName, key)
}

func copyingKnot(dir string, apexes []string) string {
	var b strings.Builder
	b.WriteString(knotHead(dir, "secondary", knot))
	fmt.Fprintf(&b, "remote:\n  - id: primary\n    address: %s@%d\n    via: %s\n    key: %s\nzone:\n", primary, port, knot, keyName)
	for _, apex := range apexes {
		fmt.Fprintf(&b, "  - domain: %s\n    file: %s/secondary.%szone\n    master: primary\n    acl: all\n", apex, dir, apex)
	}
	return b.String()
}

func copyingNSD(dir string, apexes []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server:\n  ip-address: %s@%d\n  server-count: 1\n  username: \"\"\n  chroot: \"\"\n  zonesdir: %s\n  database: \"\"\n  pidfile: \"\"\n", nsd, port, dir)
	fmt.Fprintf(&b, "  xfrdfile: %[1]s/nsd.xfrd\n  xfrdir: %[1]s\n  zonelistfile: %[1]s/nsd.zones\n  rrl-ratelimit: 0\n  xfrd-reload-timeout: 0\nremote-control:\n  control-enable: no\n", dir)
	fmt.Fprintf(&b, "key:\n  name: %s\n  algorithm: hmac-sha256\n  secret: %s\n", keyName, base64.StdEncoding.EncodeToString(secret))
	for _, apex := range apexes {
		fmt.Fprintf(&b, "zone:\n  name: %[1]s\n  zonefile: nsd.%[1]szone\n  allow-notify: %[2]s %[3]s\n  request-xfr: %[2]s@%[4]d %[3]s\n", apex, ours, keyName, port)
	}
	return b.String()
}

// presignedUnbound asks anyedge, and knows the keys that the primary has made.
func presignedUnbound(t *testing.T, dir string, apexes []string) string {
	var b strings.Builder
	b.WriteString(unboundHead(dir))
	servers := make(asking)
	for _, apex := range apexes {
		for _, rr := range servers.ask(t, primary, apex, dns.TypeDNSKEY, false).Answer {
			if key, ok := rr.(*dns.DNSKEY); ok {
				fmt.Fprintf(&b, "  trust-anchor: %q\n", strings.ReplaceAll(key.ToDS(dns.SHA256).String(), "\t", " "))
			}
		}
	}
	b.WriteString("remote-control:\n  control-enable: no\n")
	for _, apex := range apexes {
		fmt.Fprintf(&b, "stub-zone:\n  name: %q\n  stub-addr: %s@%d\n  stub-prime: no\n", apex, ours, port)
	}
	return write(t, filepath.Join(dir, "unbound.conf"), b.String())
}
