package gslb

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
)

// The keys are at the apex, with the records for the parent, and signed by those
// for that.
func TestKeysAreAtTheApex(t *testing.T) {
	keys := split(t, dnssec.ECDSAP256SHA256)
	v := signedView(t, Signing{Keys: keys, Denial: NSEC3})
	for qtype, want := range map[uint16]int{dns.TypeDNSKEY: 2, dns.TypeCDS: 1, dns.TypeCDNSKEY: 1, dns.TypeNSEC3PARAM: 1} {
		got := ask(t, v, asker("edge.example", qtype), "203.0.113.1", true)
		if len(got.Answer) != want {
			t.Errorf("%s: %v", dns.Type(qtype), got)
		}
		got = askSecure(t, v, asker("edge.example", qtype), signedAt)
		r := newResolver(t, v, signedAt)
		r.section(got.Answer, func(set []dns.RR, labels int) {
			if len(set) != want || labels != 2 {
				t.Errorf("%s: %v", dns.Type(qtype), got)
			}
		})
	}
	ds := v.zones[wire(t, "edge.example.")].signer.dnskey(keys.Entry[0]).ToDS(dns.SHA256)
	got := ask(t, v, asker("edge.example", dns.TypeCDS), "203.0.113.1", true).Answer[0].(*dns.CDS)
	if got.Digest != ds.Digest || got.KeyTag != ds.KeyTag {
		t.Errorf("%v, want %v", got, ds)
	}
}

// A zone that is to be unsigned asks its parent for that (RFC 8078 section 4).
func TestKeysAskToBeDeleted(t *testing.T) {
	keys := combined(t, dnssec.Ed25519)
	keys.Delete, keys.TTL = true, time.Minute
	v := signedView(t, Signing{Keys: keys})
	for qtype, want := range map[uint16]string{dns.TypeCDS: "edge.example. 60 CDS 0 0 0 00", dns.TypeCDNSKEY: "edge.example. 60 CDNSKEY 0 3 0 AA=="} {
		got := askSecure(t, v, asker("edge.example", qtype), signedAt)
		if len(got.Answer) != 2 || text(got.Answer[:1]) != want {
			t.Errorf("%v, want %s", got, want)
		}
		newResolver(t, v, signedAt).verify(got.Answer[:1], got.Answer)
	}
}

func TestKeysThatCannotSign(t *testing.T) {
	good := combined(t, dnssec.Ed25519)
	with := func(change func(k *dnssec.Key)) *dnssec.KeySet {
		k := *good.Zone[0]
		change(&k)
		all := []*dnssec.Key{&k}
		return &dnssec.KeySet{Published: all, Zone: all, Entry: all}
	}
	tag := good.Zone[0].Tag()
	for want, how := range map[string]Signing{
		"no key for each of the records, the keys and to be published": {Keys: &dnssec.KeySet{Published: good.Published}},
		"no way of denial has the number 7":                            {Keys: good, Denial: 7},
		"signatures valid for 1m0s; at least 1h0m0s":                   {Validity: time.Minute},
		fmt.Sprintf("key %d: the private key is missing", tag):         {Keys: with(func(k *dnssec.Key) { k.Signer = nil })},
		"does not sign":                {Keys: with(func(k *dnssec.Key) { k.Signer = newKey(t, 256, dnssec.Ed25519).Signer })},
		"algorithm 8 is not supported": {Keys: with(func(k *dnssec.Key) { k.Algorithm = 8 })},
	} {
		_, err := newSigner(wire(t, "edge.example"), how.Keys, how, newSignatures(newMetrics(nil)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
