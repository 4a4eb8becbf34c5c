package gslb

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
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

// What comes before the first name of a chain, or after the last, is covered by the
// last.
func TestPresignedAroundTheChain(t *testing.T) {
	for about, how := range chains {
		t.Run(about, func(t *testing.T) {
			v, s := presignedView(t, how)
			chain := v.zones[wire(t, "signed.example")].presigned.chain
			before, after := 0, 0
			for i := range 400 {
				n := fmt.Sprintf("z%d.signed.example.", i)
				got := askSecure(t, v, asker(n, dns.TypeA), signedAt)
				if p := s.prove(got); p.proof(false, wire(t, n)) == nil {
					t.Fatalf("not covered: %v", got)
				}
				key := wire(t, n).sortKey()
				if how != chainNSEC {
					salt, h := []byte{0xab, 0x01}, hashed{}
					h = wire(t, n).hashWith(salt, presignedIterations)
					key = string(h[:])
				}
				if key < chain[0].key {
					before++
				}
				if key > chain[len(chain)-1].key {
					after++
				}
			}
			if after == 0 || before == 0 && how != chainNSEC {
				t.Errorf("%d names before the chain, %d after it", before, after)
			}
		})
	}
}

// A query for signatures gets those of one type by all keys.
func TestPresignedByTwoKeys(t *testing.T) {
	one, other := newPresigner(t, "signed.example", chainNSEC), newPresigner(t, "signed.example", chainNSEC)
	v := viewOf(t, Zone{Name: "signed.example", Text: one.sign(presignedPlain) + other.sign(presignedPlain)})
	for question, want := range map[string]int{"mail A": 3, "mail RRSIG": 2, "mail ANY": 3} {
		n, qtype, _ := strings.Cut(question, " ")
		if got := askSecure(t, v, asker(under(n), dns.StringToType[qtype]), signedAt); len(got.Answer) != want {
			t.Errorf("%s: %v", question, got)
		}
	}
}

// A copy of the root, and names below the apex's own DNAME.
func TestPresignedAtOddPlaces(t *testing.T) {
	root := newPresigner(t, ".", chainNSEC)
	v := viewOf(t, Zone{Name: ".", Text: root.sign("@ 300 SOA a.ns. h.ns. 1 2 3 4 60\n@ 300 NS a.ns.\na.ns. 300 A 192.0.2.1\nsub. 300 NS ns.sub.\nns.sub. 300 A 192.0.2.2\n")})
	got := askSecure(t, v, asker("nothing.", dns.TypeA), signedAt)
	if p := root.prove(got); got.Rcode != dns.RcodeNameError || p.proof(false, wire(t, "nothing.")) == nil || p.proof(false, wire(t, "*.")) == nil {
		t.Errorf("%v", got)
	}
	got = askSecure(t, v, asker("www.sub.", dns.TypeA), signedAt)
	if p := root.prove(got); p.authority != "NS" || p.proof(true, wire(t, "sub.")) == nil || len(got.Extra) != 2 {
		t.Errorf("%v", got)
	}
	s := newPresigner(t, "signed.example", chainNSEC3)
	v = viewOf(t, Zone{Name: "signed.example", Text: s.sign("@ 300 SOA ns.elsewhere. h 1 2 3 4 60\n@ 300 NS ns.elsewhere.\n@ 300 DNAME elsewhere.example.\n")})
	got = askSecure(t, v, asker(under("www"), dns.TypeA), signedAt)
	if p := s.prove(got); p.answer != "DNAME RRSIG CNAME" {
		t.Errorf("%v", got)
	}
	got = askSecure(t, v, asker(under("@"), dns.TypeA), signedAt)
	if p := s.prove(got); p.proof(true, wire(t, under("@"))) == nil {
		t.Errorf("%v", got)
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
			var first *form
			for _, now := range []uint32{signedAt, signedAt + 1<<31} {
				req := request{msg: msg, from: netip.MustParseAddr("198.51.100.1"), now: now}
				if got, _, ok := v.respondFast(&q, req, make([]byte, 0, udpPayload)); !ok || len(unpack(t, got).Answer) != 2 {
					t.Errorf("at %d: %x", now, got)
				}
				_, k := v.packed(&q)
				if f := (*k.forms.Load())[netip.Addr{}]; f == nil || first != nil && f != first {
					t.Errorf("at %d: packed anew", now)
				} else {
					first = f
				}
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
