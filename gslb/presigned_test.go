package gslb

import (
	"bytes"
	"encoding/base32"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// presignedPlain has a name of every kind.
const presignedPlain = `$ORIGIN signed.example.
@ 300 SOA ns hostmaster 1 3600 900 604800 60
@ 300 NS ns
ns 300 A 192.0.2.53
mail 300 A 192.0.2.1
mail 120 TXT text
alias 300 CNAME mail
away 300 CNAME www.elsewhere.example.
*.wild 300 TXT any
*.aliases 300 CNAME mail
*.dangling 300 CNAME nothing
a.b.deep 300 A 192.0.2.2
old 300 DNAME new
host.new 300 A 192.0.2.3
secure 300 NS ns.secure
ns.secure 300 A 192.0.2.54
secure 300 DS 1 13 2 0000000000000000000000000000000000000000000000000000000000000000
insecure 300 NS ns.insecure
insecure 300 NS ns
ns.insecure 300 A 192.0.2.55
x.ent 300 NS ns.elsewhere.example.
`

func presignedText(t testing.TB, how chain) (text string, s *presigner) {
	s = newPresigner(t, "signed.example", how)
	return s.sign(presignedPlain), s
}

func viewOf(t testing.TB, zones ...Zone) *view {
	t.Helper()
	loaded, err := loadZones(zones)
	if err != nil {
		t.Fatal(err)
	}
	v, err := newView(loaded, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func presignedView(t testing.TB, how chain) (*view, *presigner) {
	t.Helper()
	text, s := presignedText(t, how)
	return viewOf(t, Zone{Name: "signed.example", Text: text}), s
}

var chains = map[string]chain{"NSEC": chainNSEC, "NSEC3": chainNSEC3, "opt-out": chainOptOut}

// What is answered with signatures to each kind of question, and what the records
// of the zone's chain beside it prove: what there is at a name (@ mail), or that
// there is none (- nothing).
func TestPresignedAnswers(t *testing.T) {
	for _, tt := range []struct {
		question            string
		rcode               int
		answer, authority   string // types
		nsec, nsec3, optOut string // "" for those of nsec3
	}{
		{"mail A", 0, "A RRSIG", "", "", "", ""},
		{"mail TXT", 0, "TXT RRSIG", "", "", "", ""},
		{"mail MX", 0, "", "SOA RRSIG", "@mail", "@mail", ""},
		{"nothing A", 3, "", "SOA RRSIG", "-nothing -*", "@ -nothing -*", ""},
		{"x.y.mail A", 3, "", "SOA RRSIG", "-x.y.mail -*.mail", "@mail -y.mail -*.mail", ""},
		{"*.mail A", 3, "", "SOA RRSIG", "-*.mail", "@mail -*.mail", ""},
		{"any.wild TXT", 0, "TXT RRSIG", "", "-any.wild", "-any.wild", ""},
		{"x.y.wild TXT", 0, "TXT RRSIG", "", "-x.y.wild", "-y.wild", ""},
		{"*.wild TXT", 0, "TXT RRSIG", "", "", "", ""},
		{"any.wild A", 0, "", "SOA RRSIG", "-any.wild @*.wild", "@wild -any.wild @*.wild", ""},
		{"x.y.wild A", 0, "", "SOA RRSIG", "-x.y.wild @*.wild", "@wild -y.wild @*.wild", ""},
		{"any.wild ANY", 0, "TXT RRSIG", "", "-any.wild", "-any.wild", ""},
		{"deep A", 0, "", "SOA RRSIG", "-deep", "@deep", ""},
		{"b.deep ANY", 0, "", "SOA RRSIG", "-b.deep", "@b.deep", ""},
		{"wild A", 0, "", "SOA RRSIG", "-wild", "@wild", ""},
		{"secure A", 0, "", "NS DS RRSIG", "", "", ""},
		{"x.secure DS", 0, "", "NS DS RRSIG", "", "", ""},
		{"secure DS", 0, "DS RRSIG", "", "", "", ""},
		{"insecure A", 0, "", "NS", "@insecure", "@insecure", "@ -insecure"},
		{"x.insecure A", 0, "", "NS", "@insecure", "@insecure", "@ -insecure"},
		{"insecure DS", 0, "", "SOA RRSIG", "@insecure", "@insecure", "@ -insecure"},
		{"x.ent A", 0, "", "NS", "@x.ent", "@x.ent", "@ -ent"},
		{"ent A", 0, "", "SOA RRSIG", "-ent", "@ent", "@ -ent"},
		{"y.ent A", 3, "", "SOA RRSIG", "-y.ent -*.ent", "@ent -y.ent -*.ent", "@ -ent -*"},
		{"alias A", 0, "CNAME RRSIG A RRSIG", "", "", "", ""},
		{"alias MX", 0, "CNAME RRSIG", "SOA RRSIG", "@mail", "@mail", ""},
		{"alias CNAME", 0, "CNAME RRSIG", "", "", "", ""},
		{"alias ANY", 0, "CNAME RRSIG", "", "", "", ""},
		{"away A", 0, "CNAME RRSIG", "", "", "", ""},
		{"any.aliases A", 0, "CNAME RRSIG A RRSIG", "", "-any.aliases", "-any.aliases", ""},
		{"any.dangling A", 3, "CNAME RRSIG", "SOA RRSIG", "-any.dangling -nothing -*", "-any.dangling @ -nothing -*", ""},
		{"host.old A", 0, "DNAME RRSIG CNAME A RRSIG", "", "", "", ""},
		{"old DNAME", 0, "DNAME RRSIG", "", "", "", ""},
		{"@ DS", 0, "", "SOA RRSIG", "@", "@", ""},
		{"@ DNSKEY", 0, "DNSKEY RRSIG", "", "", "", ""},
		{"@ ANY", 0, "NS RRSIG", "", "", "", ""},
		{"mail ANY", 0, "A RRSIG", "", "", "", ""},
		{"mail RRSIG", 0, "RRSIG", "", "", "", ""},
		{"alias RRSIG", 0, "RRSIG", "", "", "", ""},
		{"mail NSEC3", 0, "", "SOA RRSIG", "@mail", "@mail", ""},
	} {
		for about, how := range chains {
			t.Run(about+"/"+tt.question, func(t *testing.T) {
				v, s := presignedView(t, how)
				want := tt.nsec
				switch {
				case how == chainOptOut && tt.optOut != "":
					want = tt.optOut
				case how != chainNSEC:
					want = tt.nsec3
				}
				n, qtype, _ := strings.Cut(tt.question, " ")
				got := askSecure(t, v, asker(under(n), dns.StringToType[qtype]), signedAt)
				p := s.prove(got)
				if got.Rcode != tt.rcode || p.answer != tt.answer || p.authority != tt.authority {
					t.Errorf("%s, %s; %s", dns.RcodeToString[got.Rcode], p.answer, p.authority)
				}
				needed := make(map[dns.RR]bool) // one may prove more than one
				for _, each := range strings.Fields(want) {
					rr := p.proof(each[0] == '@', wire(t, under(each[1:])))
					if rr == nil {
						t.Errorf("%s is not proved", each)
					}
					needed[rr] = true
				}
				if len(needed) != len(p.deniers) {
					t.Errorf("%d records of the chain, %d needed", len(p.deniers), len(needed))
				}
				if t.Failed() {
					t.Log(got)
				}
			})
		}
	}
}

// under completes a name of the zone.
func under(n string) string {
	if n == "" || n == "@" {
		return "signed.example."
	}
	return n + ".signed.example."
}

// proofs are what there is in an answer, and the records of the chain.
type proofs struct {
	*presigner
	answer, authority string // types, without those of the chain
	deniers           []dns.RR
}

// prove checks that all is signed but what is not to be, each set once.
func (s *presigner) prove(m *dns.Msg) proofs {
	s.Helper()
	p := proofs{presigner: s}
	section := func(records []dns.RR) (types string) {
		for rest := records; len(rest) > 0; {
			h := rest[0].Header()
			n := 1
			for n < len(rest) && rest[n].Header().Name == h.Name && rest[n].Header().Rrtype == h.Rrtype {
				n++
			}
			set := rest[:n]
			rest = rest[n:]
			denier := h.Rrtype == dns.TypeNSEC || h.Rrtype == dns.TypeNSEC3
			if denier {
				p.deniers = append(p.deniers, set...)
			} else {
				types += " " + dns.TypeToString[h.Rrtype]
			}
			if len(rest) == 0 {
				break
			}
			sig, ok := rest[0].(*dns.RRSIG)
			if !ok || h.Rrtype == dns.TypeRRSIG {
				continue
			}
			if sig.TypeCovered != h.Rrtype || sig.Hdr.Ttl != h.Ttl || sig.Verify(s.dnskey, set) != nil {
				s.Errorf("%v: does not sign %v", sig, set)
			}
			rest = rest[1:]
			if !denier {
				types += " RRSIG"
			}
		}
		return strings.TrimSpace(types)
	}
	p.answer = section(m.Answer)
	p.authority = section(m.Ns)
	for _, rr := range p.deniers {
		if !slices.ContainsFunc(m.Ns, func(sig dns.RR) bool {
			return sig.Header().Rrtype == dns.TypeRRSIG && sig.Header().Name == rr.Header().Name
		}) {
			s.Errorf("%v is not signed", rr)
		}
	}
	return p
}

// proof returns the record of the chain that matches a name, or covers it; nil if
// there is none.
func (p *proofs) proof(matches bool, n name) dns.RR {
	at := slices.IndexFunc(p.deniers, func(rr dns.RR) bool {
		switch rr := rr.(type) {
		case *dns.NSEC:
			from, to := wire(p, rr.Hdr.Name), wire(p, rr.NextDomain)
			if matches {
				return from == n
			}
			return compare(from, n) < 0 && (compare(n, to) < 0 || to == wire(p, p.dnskey.Hdr.Name))
		case *dns.NSEC3:
			if matches {
				return rr.Match(n.String())
			}
			return rr.Cover(n.String())
		}
		return false
	})
	if at < 0 {
		return nil
	}
	return p.deniers[at]
}

// Who does not ask for signatures gets what a zone without them says, to the octet.
func TestPresignedWithoutDO(t *testing.T) {
	plain := viewOf(t, Zone{Name: "signed.example", Text: presignedPlain})
	for about, how := range chains {
		t.Run(about, func(t *testing.T) {
			v, _ := presignedView(t, how)
			for n := range plain.entries {
				for _, each := range []string{n.String(), "x." + n.String(), "x.y." + n.String()} {
					for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeCNAME, dns.TypeDNAME, sample} {
						q := asker(each, qtype)
						msg, err := q.Pack()
						if err != nil {
							continue // too long
						}
						fast, slow, _, ok := both(v, msg, "198.51.100.1", 1)
						_, want, _, wantOK := both(plain, msg, "198.51.100.1", 1)
						if !bytes.Equal(slow, want) || ok && !bytes.Equal(fast, want) {
							t.Errorf("%s %s: %v, want %v", each, dns.Type(qtype), unpack(t, slow), unpack(t, want))
						}
						if ok != wantOK {
							t.Errorf("%s %s: packed %v, without signatures %v", each, dns.Type(qtype), ok, wantOK)
						}
					}
				}
			}
		})
	}
}

// The records of signing are there for who asks for just them.
func TestPresignedRecordsAskedFor(t *testing.T) {
	v, _ := presignedView(t, chainNSEC)
	for question, want := range map[string]string{
		"mail NSEC": "NSEC", "alias NSEC": "NSEC", "mail RRSIG": "RRSIG", "alias RRSIG": "RRSIG",
		"any.wild RRSIG": "RRSIG", "deep NSEC": "", "deep RRSIG": "", "alias NSEC3PARAM": "CNAME",
	} {
		n, qtype, _ := strings.Cut(question, " ")
		got := ask(t, v, asker(under(n), dns.StringToType[qtype]), "198.51.100.1", true)
		var types []string
		for _, rr := range got.Answer {
			types = append(types, dns.TypeToString[rr.Header().Rrtype])
			if rr.Header().Name != under(n) {
				t.Errorf("%s: %v", question, rr)
			}
		}
		if got.Rcode != dns.RcodeSuccess || strings.Join(types, " ") != want || len(got.Ns) != 0 && want != "" && want != "CNAME" {
			t.Errorf("%s: %v", question, got)
		}
	}
}

// NSEC3 records are at names that do not exist, RFC 5155 section 7.2.8.
func TestPresignedHashesAreNoNames(t *testing.T) {
	v, s := presignedView(t, chainNSEC3)
	for _, set := range v.zones[wire(t, "signed.example")].presigned.chain {
		n := set.set[0].Header().Name
		for _, qtype := range []uint16{dns.TypeNSEC3, dns.TypeA, dns.TypeRRSIG} {
			got := askSecure(t, v, asker(n, qtype), signedAt)
			p := s.prove(got)
			if got.Rcode != dns.RcodeNameError || len(got.Answer) != 0 || p.proof(false, wire(t, n)) == nil || p.proof(true, wire(t, "signed.example")) == nil {
				t.Errorf("%s %s: %v", n, dns.Type(qtype), got)
			}
		}
	}
}

// Both paths agree, and keep the answers with signatures for as long as the zone
// is there.
func TestPresignedFastAgreesWithSlow(t *testing.T) {
	for about, how := range chains {
		t.Run(about, func(t *testing.T) {
			v, _ := presignedView(t, how)
			fastAgreesWithSlow(t, v, 20)
			msg, err := secureAsker(under("mail"), dns.TypeA).Pack()
			if err != nil {
				t.Fatal(err)
			}
			var q fastQuery
			for _, now := range []uint32{signedAt, signedAt + 1<<31} {
				req := request{msg: msg, from: netip.MustParseAddr("198.51.100.1"), now: now}
				if got, _, ok := v.respondFast(&q, req, make([]byte, 0, udpPayload)); !ok || len(unpack(t, got).Answer) != 2 {
					t.Errorf("at %d: %x", now, got)
				}
			}
			if _, k := v.packed(&q); len(*k.forms.Load()) != 1 {
				t.Errorf("%d forms", len(*k.forms.Load()))
			}
		})
	}
}

// An answer that is too large with its signatures says so, without any part of it.
func TestPresignedTruncated(t *testing.T) {
	s := newPresigner(t, "signed.example", chainNSEC)
	v := viewOf(t, Zone{Name: "signed.example", Text: s.sign(presignedPlain + "big 300 TXT " + strings.Repeat(`"`+strings.Repeat("x", 250)+`" `, 3) + "\n")})
	for size, truncated := range map[uint16]bool{512: true, 800: true, 1232: false} {
		q := asker(under("big"), dns.TypeTXT)
		q.SetEdns0(size, true)
		got := ask(t, v, q, "198.51.100.1", false)
		if got.Truncated != truncated || truncated && len(got.Answer)+len(got.Ns) > 0 || !truncated && len(got.Answer) != 2 {
			t.Errorf("%d octets: %v", size, got)
		}
	}
}

// What a zone comes signed with leaves no place for what is made here.
func TestPresignedIsNotMixed(t *testing.T) {
	text, _ := presignedText(t, chainNSEC)
	signed := Zone{Name: "edge.example", Text: strings.ReplaceAll(text, "signed.example.", "edge.example.")}
	with := func(change func(*Zone)) []Zone {
		z := signed
		change(&z)
		return []Zone{z}
	}
	in := steering()
	in.Names = in.Names[:1]
	s, _, _ := start(t, Config{})
	for _, tt := range []struct {
		want string // "" for no error
		err  error
	}{
		{"zone edge.example.: an alias: ", s.Set(with(func(z *Zone) { z.Alias = "www.apex.example" }), nil)},
		{"zone edge.example.: ", s.Set(with(func(z *Zone) { z.Signing.Await = true }), nil)},
		{"zone edge.example.: ", s.Set(with(func(z *Zone) { z.Signing.Keys = combined(t, dnssec.Ed25519) }), nil)},
		{"", s.Set([]Zone{signed}, nil)},
		{"zone edge.example.: ", s.Sign("edge.example", combined(t, dnssec.Ed25519))},
		{"steered name www.edge.example: ", s.Update(table(t, in))},
	} {
		if tt.want == "" && tt.err == nil {
			continue
		}
		if tt.err == nil || !strings.HasPrefix(tt.err.Error(), tt.want+"edge.example:") || !strings.HasSuffix(tt.err.Error(), "RRSIG: the zone comes signed, and is served as it is") {
			t.Errorf("got %v, want %s", tt.err, tt.want)
		}
	}
}

// A copy has all that its primary has, is passed on with it, and follows changes.
func TestPresignedCopy(t *testing.T) {
	for about, how := range chains {
		t.Run(about, func(t *testing.T) {
			free := netip.MustParseAddrPort("127.0.0.1:0")
			all := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			signer := newPresigner(t, "copied.example", how)
			zones := func(serial int, to ...Peer) []Zone {
				// Spelled so that the changes have to find what was stored.
				text := signer.sign(version(serial, fmt.Sprintf("%s 300 TXT %d", "a", serial), "*.wild 300 TXT any"))
				return append(testZones(), primaryZone(text, &Transfer{Allow: all, Notify: to})...)
			}
			primary, _, _ := start(t, Config{Listen: []netip.AddrPort{free}, Zones: zones(1)})
			s, asks := startCopy(t, primary.Addresses()[0], "")
			await(t, asks, "a.copied.example TXT", `a.copied.example. 300 TXT "1"`)
			same := func() {
				t.Helper()
				n := wire(t, "copied.example")
				had, have := records(primary.view.Load().zones[n]), records(s.view.Load().zones[n])
				if !slices.Equal(had, have) {
					t.Errorf("copied\n%s\nof\n%s", strings.Join(have, "\n"), strings.Join(had, "\n"))
				}
			}
			same()
			if err := primary.SetZones(zones(2, Peer{Address: s.Addresses()[0]})); err != nil {
				t.Fatal(err)
			}
			await(t, asks, "a.copied.example TXT", `a.copied.example. 300 TXT "2"`)
			same()
			z := s.view.Load().zones[wire(t, "copied.example")]
			if len(z.history) != 1 || len(z.history[0].added) == len(z.all()) {
				t.Errorf("history %v", z.history)
			}
			got := askSecure(t, s.view.Load(), asker("x.wild.copied.example", dns.TypeTXT), signedAt)
			if p := signer.prove(got); p.answer != "TXT RRSIG" || len(p.deniers) != 1 {
				t.Errorf("after a change: %v", got)
			}
		})
	}
}

// records prints all of a zone in order.
func records(z *zone) (all []string) {
	for _, rr := range z.whole() {
		all = append(all, rr.String())
	}
	slices.Sort(all)
	return all
}

// Of several chains that one is used whose parameters the apex has, and which is
// whole.
func TestPresignedChains(t *testing.T) {
	nsec, _ := presignedText(t, chainNSEC)
	nsec3, _ := presignedText(t, chainNSEC3)
	param := fmt.Sprintf("signed.example. 0 IN NSEC3PARAM 1 0 %d %s\n", presignedIterations, strings.ToUpper(presignedSalt))
	var withoutParam strings.Builder
	for line := range strings.Lines(nsec3) {
		if !strings.Contains(line, "\tNSEC3PARAM\t") {
			withoutParam.WriteString(line)
		}
	}
	hash := func(of string) string {
		h := wire(t, of).hash()
		return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(h[:]))
	}
	other := "signed.example. 0 IN NSEC3PARAM 1 0 0 -\n" + hash("signed.example.") + ".signed.example. 60 IN NSEC3 1 0 0 - " + hash("x.signed.example.") + " A\n"
	for about, tt := range map[string]struct {
		text  string
		nsec3 bool
		size  int
	}{
		"NSEC":                           {nsec, false, 14},
		"NSEC3":                          {nsec3, true, 21},
		"both":                           {nsec + nsec3, true, 21},
		"both, of which one is not yet":  {nsec + withoutParam.String(), false, 14},
		"parameters without a chain":     {nsec + "@ 0 NSEC3PARAM 1 0 7 -\n", false, 14},
		"parameters spelled otherwise":   {withoutParam.String() + param, true, 21},
		"parameters that are being made": {nsec + "@ 0 NSEC3PARAM 1 1 3 ab01\n" + withoutParam.String(), false, 14},
		"another hash":                   {nsec + "@ 0 NSEC3PARAM 2 0 3 ab01\n" + withoutParam.String(), false, 14},
		"two of NSEC3":                   {other + withoutParam.String(), true, 1},
		"none":                           {withoutParam.String(), false, 0},
	} {
		z, err := loadZone(Zone{Name: "signed.example", Text: tt.text})
		if err != nil {
			t.Errorf("%s: %v", about, err)
			continue
		}
		if p := z.presigned; (p.nsec3 != nil) != tt.nsec3 || len(p.chain) != tt.size {
			t.Errorf("%s: NSEC3 %v, %d records", about, p.nsec3, len(p.chain))
		}
	}
}

// When signatures expire is a metric, and a warning once they have; they are given
// out all the same.
func TestPresignedExpiry(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	s, err := New(Config{Listen: []netip.AddrPort{{}}, Zones: testZones()}, slog.New(slog.NewTextHandler(&log, nil)), reg)
	if err != nil {
		t.Fatal(err)
	}
	signer := newPresigner(t, "signed.example", chainNSEC)
	set := func(expires time.Time) {
		t.Helper()
		signer.expires = uint32(expires.Unix())
		if err := s.SetZones(append(testZones(), Zone{Name: "signed.example", Text: signer.sign(presignedPlain)})); err != nil {
			t.Fatal(err)
		}
		if got := value(t, reg, metricExpiry); got != float64(expires.Unix()) {
			t.Errorf("%v, want %v", got, expires.Unix())
		}
	}
	set(time.Unix(1_000_000_000, 0))
	if !strings.Contains(log.String(), "expired signatures") {
		t.Errorf("log %s", log.String())
	}
	got := askSecure(t, s.view.Load(), asker(under("mail"), dns.TypeA), signedAt)
	if len(got.Answer) != 2 {
		t.Errorf("expired: %v", got)
	}
	log.Reset()
	set(time.Now().Add(time.Hour))
	if log.Len() > 0 {
		t.Errorf("log %s", log.String())
	}
	if err := s.SetZones(testZones()); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == metricExpiry {
			t.Errorf("left: %v", f)
		}
	}
}
