package conformancedns

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
	"anyedge/gslb/dnssec"
	"anyedge/gslb/steer"

	"github.com/miekg/dns"
)

// perSigned is how many questions are asked about each signed zone.
const perSigned = 60

var unbound = netip.AddrFrom4([4]byte{127, 0, 79, 4})

// key makes a key that signs all of a zone.
func key(t *testing.T, algorithm uint8) *dnssec.KeySet {
	t.Helper()
	k := &dnssec.Key{Flags: dnssec.SecureEntryPoint, Algorithm: algorithm}
	if algorithm == dnssec.Ed25519 {
		public, private, err := ed25519.GenerateKey(cryptorand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k.Public, k.Signer = public, private
	} else {
		private, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		k.Public, k.Signer = point[1:], private
	}
	all := []*dnssec.Key{k}
	return &dnssec.KeySet{Published: all, Zone: all, Entry: all, Parent: all}
}

// ds is the record for the parent of a zone.
func ds(apex string, keys *dnssec.KeySet) *dns.DS {
	k := keys.Entry[0]
	record := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: apex, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300},
		Flags: k.Flags, Protocol: 3, Algorithm: k.Algorithm, PublicKey: base64.StdEncoding.EncodeToString(k.Public),
	}
	return record.ToDS(dns.SHA256)
}

// signing are the ways that zones are signed, in turn.
func signing(t *testing.T, i int) gslb.Signing {
	return gslb.Signing{
		Keys:   key(t, []uint8{dnssec.ECDSAP256SHA256, dnssec.Ed25519}[i%2]),
		Denial: []gslb.Denial{gslb.Compact, gslb.NSEC3}[i/2%2],
	}
}

// steered is what steered zones have beside their names.
const steered = "@ 300 SOA ns hostmaster 1 2 3 4 60\n@ 300 NS ns\nns 300 A 192.0.2.53\nalias 300 CNAME www\nwww 300 TXT text\n"

// signedZones are a tree of zones from the root, made at random but for those of
// steered names, and all signed.
func signedZones(t *testing.T, random *rand.Rand) (all []gslb.Zone, names map[string][]string) {
	files, names := makeZones(t, t.TempDir(), random)
	parent := "@ 300 SOA ns hostmaster 1 2 3 4 60\n@ 300 NS ns\nns 300 A 192.0.2.53\n"
	add := func(apex, file, text string) {
		z := gslb.Zone{Name: apex, File: file, Text: text, Signing: signing(t, len(all))}
		all = append(all, z)
		parent += fmt.Sprintf("%s 300 NS ns.test.\n%s", apex, strings.ReplaceAll(ds(apex, z.Signing.Keys).String(), "\t", " ")+"\n")
	}
	for i := range 4 {
		add(fmt.Sprintf("s%d.test.", i), "", steered)
	}
	for _, apex := range slices.Sorted(maps.Keys(files)) {
		add(apex, files[apex], "")
	}
	test := gslb.Zone{Name: "test.", Text: strings.ReplaceAll(parent, "SOA ns hostmaster", "SOA ns.test. hostmaster.test."), Signing: signing(t, 2)}
	root := gslb.Zone{Name: ".", Signing: signing(t, 1), Text: "@ 300 SOA ns.test. hostmaster.test. 1 2 3 4 60\n@ 300 NS ns.test.\ntest. 300 NS ns.test.\nns.test. 300 A 192.0.2.53\n" +
		ds("test.", test.Signing.Keys).String() + "\n"}
	return append(all, test, root), names
}

// steeredNames is a table of names that have addresses of one or both kinds.
func steeredNames(t *testing.T) *steer.Table {
	in := steer.Input{Pops: []steer.Pop{
		{Name: "a", State: steer.Up, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
		{Name: "b", State: steer.Up, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")}},
	}}
	for i := range 4 {
		for _, n := range []string{"www", "*.any", "x.empty"} {
			in.Names = append(in.Names, steer.Name{Name: fmt.Sprintf("%s.s%d.test", n, i), Policy: steer.Failover, TTL: 30 * time.Second, Answers: []steer.Answer{{Pop: "a"}, {Pop: "b"}}})
		}
		in.Names = append(in.Names, steer.Name{Name: fmt.Sprintf("four.s%d.test", i), Policy: steer.Failover, TTL: 30 * time.Second, Answers: []steer.Answer{{Pop: "b"}}})
	}
	table, err := steer.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// startSigned runs anyedge with signed zones, and unbound with nothing but the
// key of their root.
func startSigned(t *testing.T) (all []gslb.Zone, names map[string][]string) {
	all, names = signedZones(t, rand.New(rand.NewPCG(seed, 2)))
	s := serve(t, all)
	if err := s.Update(steeredNames(t)); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		apex := fmt.Sprintf("s%d.test.", i)
		names[apex] = []string{"www", "alias", "any", "a.any", "b.any", "x.empty", "empty", "four", "nothing"}
	}
	return all, names
}

// unboundHead is the part of Unbound's config that it has for all zones.
func unboundHead(dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server:\n  interface: %s@%d\n  port: %d\n  access-control: 127.0.0.0/8 allow\n  do-not-query-localhost: no\n  do-ip6: no\n", unbound, port, port)
	fmt.Fprintf(&b, "  directory: %q\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  do-daemonize: no\n  num-threads: 1\n", dir)
	// The test zones are told as the real ones: without the local zones that
	// hide them, and never asked at the addresses that they give.
	fmt.Fprintf(&b, "  local-zone: \"test.\" nodefault\n  local-zone: \"invalid.\" nodefault\n  do-not-query-address: 192.0.2.0/24\n")
	fmt.Fprintf(&b, "  local-zone: \"ready.\" static\n  local-data: \"ready. SOA ready. ready. 1 2 3 4 5\"\n")
	// Of the rcode of a shorter name it keeps that of the end of its aliases, and
	// takes it for that of names below.
	fmt.Fprintf(&b, "  harden-below-nxdomain: no\n")
	fmt.Fprintf(&b, "  module-config: \"validator iterator\"\n  aggressive-nsec: yes\n  qname-minimisation: yes\n  val-log-level: 2\n")
	return b.String()
}

func unboundConfig(t *testing.T, dir string, all []gslb.Zone) string {
	root := all[len(all)-1]
	var b strings.Builder
	b.WriteString(unboundHead(dir))
	fmt.Fprintf(&b, "  trust-anchor: %q\n", strings.ReplaceAll(ds(".", root.Signing.Keys).String(), "\t", " "))
	fmt.Fprintf(&b, "remote-control:\n  control-enable: no\n")
	for _, z := range all {
		fmt.Fprintf(&b, "stub-zone:\n  name: %q\n  stub-addr: %s@%d\n  stub-prime: no\n", z.Name, ours, port)
	}
	return write(t, filepath.Join(dir, "unbound.conf"), b.String())
}

// TestUnboundValidates asks unbound, which knows the key of the root, and expects
// what anyedge says without signatures, as secure.
func TestUnboundValidates(t *testing.T) {
	if os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "" {
		t.Skip(skipText)
	}
	all, names := startSigned(t)
	dir := t.TempDir()
	startPeer(t, unbound, map[string]string{"ready.": ""}, "unbound", "-d", "-c", unboundConfig(t, dir, all))

	random := rand.New(rand.NewPCG(seed, 3))
	compact := make(map[string]bool)
	for _, z := range all {
		compact[z.Name] = z.Signing.Denial == gslb.Compact
	}
	kinds := make(map[string]int)
	asked, failed := 0, 0
	for _, z := range all {
		if names[z.Name] == nil {
			continue
		}
		for range perSigned {
			qname, qtype := question(random, z.Name, names[z.Name])
			plain, err := ask(ours, qname, qtype)
			if err != nil {
				t.Fatal(err)
			}
			kind := kindOf(qname, qtype, plain)
			// Unbound takes aliases that it was asked for to an end, and those that a
			// DNAME makes for forged: other servers' zones fare alike.
			if kind == "" || qtype == dns.TypeCNAME || qtype == dns.TypeDNAME {
				continue
			}
			got, err := validated(qname, qtype)
			if err != nil {
				t.Fatalf("%s %s: %v", qname, dns.Type(qtype), err)
			}
			asked++
			kinds[kind]++
			rcode := plain.Rcode
			if rcode == dns.RcodeNameError && compact[plain.Ns[0].Header().Name] {
				rcode = dns.RcodeSuccess
			}
			if got.Rcode == rcode && got.AuthenticatedData && records(got) == records(plain) {
				continue
			}
			if failed++; failed <= 5 {
				t.Errorf("%s %s (%s)\nanyedge %s\nunbound %v", qname, dns.Type(qtype), kind, essence(plain), got)
			}
		}
	}
	t.Logf("%d answers validated, %d not: %v", asked-failed, failed, kinds)
	for _, kind := range []string{"answer", "no data", "no name", "DNAME", "wildcard"} {
		if kinds[kind] < 10 {
			t.Errorf("%d of the kind %q: too few", kinds[kind], kind)
		}
	}
}

// kindOf says what an answer is, "" for one that does not lead to an end that a
// resolver can reach: a referral to a server that is not there, or a circle.
func kindOf(qname string, qtype uint16, m *dns.Msg) string {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return ""
	}
	at, kind := strings.ToLower(qname), ""
	seen := []string{at}
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.CNAME:
			if qtype == dns.TypeCNAME {
				break
			}
			at = strings.ToLower(rr.Target)
			if slices.Contains(seen, at) {
				return ""
			}
			seen = append(seen, at)
		case *dns.DNAME:
			if qtype != dns.TypeDNAME {
				kind = "DNAME"
			}
		}
	}
	last := func() dns.RR { return m.Answer[len(m.Answer)-1] }
	switch {
	case len(m.Ns) > 0 && m.Ns[0].Header().Rrtype == dns.TypeNS && (len(m.Answer) == 0 || last().Header().Rrtype != qtype):
		return ""
	case len(m.Ns) == 0 && (len(m.Answer) == 0 || last().Header().Rrtype != qtype):
		return ""
	case kind != "":
		return kind
	case m.Rcode == dns.RcodeNameError:
		return "no name"
	case len(m.Answer) == 0 || last().Header().Rrtype != qtype:
		return "no data"
	case wildcard(qname, qtype):
		return "wildcard"
	}
	return "answer"
}

// wildcard reports whether an answer is one, by the labels in its signature.
func wildcard(qname string, qtype uint16) bool {
	q := new(dns.Msg)
	q.SetQuestion(qname, qtype)
	q.SetEdns0(1232, true)
	c := dns.Client{Net: "tcp", Timeout: 2 * time.Second}
	m, _, err := c.Exchange(q, netip.AddrPortFrom(ours, port).String())
	if err != nil {
		return false
	}
	return slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
		sig, ok := rr.(*dns.RRSIG)
		return ok && int(sig.Labels) < dns.CountLabel(strings.TrimPrefix(sig.Hdr.Name, "*."))
	})
}

// records are those of an answer, without TTL, which caches count down.
func records(m *dns.Msg) string {
	var all []string
	for _, rr := range m.Answer {
		if rr.Header().Rrtype != dns.TypeRRSIG {
			c := dns.Copy(rr)
			c.Header().Ttl = 0
			all = append(all, strings.ToLower(c.String()))
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\n")
}

// validated asks unbound.
func validated(qname string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(qname, qtype)
	q.SetEdns0(1232, true)
	q.AuthenticatedData = true
	c := dns.Client{Net: "tcp", Timeout: 10 * time.Second}
	got, _, err := c.Exchange(q, netip.AddrPortFrom(unbound, port).String())
	return got, err
}

// TestDelvValidates asks BIND's validator for one answer of every kind in each way
// of signing.
func TestDelvValidates(t *testing.T) {
	if os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "" {
		t.Skip(skipText)
	}
	delv := find(t, "delv")
	serve(t, kinds(t))
	for i := range 4 {
		apex := fmt.Sprintf("k%d.test", i)
		anchor := ds(apex+".", kindKeys[i])
		file := write(t, filepath.Join(t.TempDir(), "anchors"), fmt.Sprintf("trust-anchors { %s static-ds %d %d %d %q; };\n", apex, anchor.KeyTag, anchor.Algorithm, anchor.DigestType, anchor.Digest))
		for question, want := range map[string]string{
			"SOA":               "; fully validated",
			"DNSKEY":            "; fully validated",
			"mail A":            "; fully validated",
			"alias A":           "; fully validated",
			"any.wild TXT":      "; fully validated",
			"x.y.wild TXT":      "; fully validated",
			"alias CNAME":       "; fully validated",
			"host.old A":        "; fully validated",
			"host.old CNAME":    "; fully validated",
			"old DNAME":         "; fully validated",
			"secure DS":         "; fully validated",
			"mail AAAA":         "; negative response, fully validated",
			"insecure DS":       "; negative response, fully validated",
			"deep A":            "; negative response, fully validated",
			"any.wild A":        "; negative response, fully validated",
			"nothing A":         "; negative response, fully validated",
			"x.y.mail A":        "; negative response, fully validated",
			"x.dangling.mail A": "; negative response, fully validated",
		} {
			n, qtype, ok := strings.Cut(question, " ")
			if !ok {
				n, qtype = "", question
			}
			out, err := exec.CommandContext(t.Context(), delv, "@"+ours.String(), "-p", fmt.Sprint(port), "-a", file, "+root="+apex,
				strings.TrimPrefix(n+"."+apex+".", "."), qtype).CombinedOutput()
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s %s: %v\n%s", apex, question, err, out)
			}
		}
	}
}

// kindKeys are those of kinds.
var kindKeys []*dnssec.KeySet

// kinds are zones with one name of every kind, signed in all ways.
func kinds(t *testing.T) (all []gslb.Zone) {
	kindKeys = nil
	for i := range 4 {
		z := gslb.Zone{Name: fmt.Sprintf("k%d.test", i), Signing: signing(t, i), Text: "@ 300 SOA ns hostmaster 1 7200 900 1209600 300\n@ 300 NS ns\nns 300 A 127.0.79.1\nmail 300 A 192.0.2.1\nalias 300 CNAME mail\n" +
			"*.wild 300 TXT any\na.b.deep 300 A 192.0.2.2\nold 300 DNAME new\nhost.new 300 A 192.0.2.3\nsecure 300 NS ns.elsewhere.invalid.\nsecure 300 DS 1 13 2 " + strings.Repeat("00", 32) +
			"\ninsecure 300 NS ns.elsewhere.invalid.\n"}
		kindKeys = append(kindKeys, z.Signing.Keys)
		all = append(all, z)
	}
	return all
}

// TestDNSVizFindsNothing has DNSViz look for errors and warnings.
func TestDNSVizFindsNothing(t *testing.T) {
	if os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "" {
		t.Skip(skipText)
	}
	dnsviz := find(t, "dnsviz")
	serve(t, kinds(t))
	dir := t.TempDir()
	for i := range 4 {
		apex := fmt.Sprintf("k%d.test", i)
		probe := filepath.Join(dir, "probe.json")
		args := []string{"probe", "-4", "-A", "-a", apex, "-x", fmt.Sprintf("%s+:ns.%s=%s", apex, apex, netip.AddrPortFrom(ours, port)), "-o", probe}
		for _, n := range []string{"", "mail.", "alias.", "any.wild.", "host.old.", "nothing.", "deep."} {
			args = append(args, n+apex)
		}
		if out, err := exec.CommandContext(t.Context(), dnsviz, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		out, err := exec.CommandContext(t.Context(), dnsviz, "grok", "-P", "-r", probe).Output()
		if err != nil {
			var failed *exec.ExitError
			errors.As(err, &failed)
			t.Fatalf("%v\n%s", err, failed.Stderr)
		}
		var report any
		if err := json.Unmarshal(out, &report); err != nil {
			t.Fatal(err)
		}
		var found []string
		statuses := make(map[string]int)
		complaints(report, "", &found, statuses)
		t.Logf("%s: %v", apex, statuses)
		if len(found) > 0 || statuses["VALID"] == 0 {
			t.Errorf("%s:\n%s", apex, strings.Join(found, "\n"))
		}
	}
}

// complaints collects the errors and warnings of a report of DNSViz, and counts
// the statuses in it.
func complaints(at any, path string, found *[]string, statuses map[string]int) {
	switch at := at.(type) {
	case map[string]any:
		for k, v := range at {
			if k == "errors" || k == "warnings" {
				text, _ := json.Marshal(v)
				*found = append(*found, fmt.Sprintf("%s %s %s", path, k, text))
				continue
			}
			if status, ok := v.(string); ok && k == "status" {
				statuses[status]++
			}
			complaints(v, path+"/"+k, found, statuses)
		}
	case []any:
		for i, v := range at {
			complaints(v, fmt.Sprintf("%s[%d]", path, i), found, statuses)
		}
	}
}
