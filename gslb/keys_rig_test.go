package gslb

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/gslb/dnssec"
	"anyedge/internal/fleet"

	"github.com/miekg/dns"
)

// quick is a signing whose every step takes minutes and hours.
func quick(change ...func(*configs.ZoneDNSSEC)) *configs.ZoneDNSSEC {
	hours := func(n int) configs.Duration { return configs.Duration(time.Duration(n) * time.Hour) }
	c := &configs.ZoneDNSSEC{
		Algorithm: "ecdsa-p256", Keys: "ksk_zsk", Denial: "compact", ZSKLifetime: new(hours(4)), KSKLifetime: hours(9),
		Propagation: configs.Duration(time.Minute), MaxTTL: hours(1),
		ParentDSTTL: configs.Duration(20 * time.Minute), ParentPropagation: configs.Duration(5 * time.Minute),
	}
	for _, do := range change {
		do(c)
	}
	return c
}

// signingNode is what a node has to do with keys: a server that opens no sockets, and
// the keeper of its keys.
type signingNode struct {
	t      *testing.T
	cfg    *configs.GSLB
	server *Server
	fleet  *fleet.Fleet
	keys   *keyKeeper
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// newSigningNode returns a node over a store, which is shared with others if it has
// a sealer.
func newSigningNode(t *testing.T, store fleet.Store, sealer *fleet.Sealer, c *configs.ZoneDNSSEC) (*signingNode, error) {
	t.Helper()
	f, err := fleet.New(fleet.Config{Store: store, Sealer: sealer, ValidZoneKeys: validZoneKeys})
	if err != nil {
		t.Fatal(err)
	}
	cfg := &configs.GSLB{Zones: []configs.Zone{{Name: "Edge.example.", DNSSEC: c}}}
	if sealer != nil {
		cfg.Fleet.Consul = new(configs.Consul)
	}
	server, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Zones: textZones(cfg)}, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &signingNode{t: t, cfg: cfg, server: server, fleet: f}
	n.keys, err = newKeyKeeper(cfg, f, server, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	n.keys.step(t.Context(), time.Now(), f.View())
	return n, nil
}

func textZones(cfg *configs.GSLB) []Zone {
	return []Zone{{Name: cfg.Zones[0].Name, Text: keyedZone, Signing: signingOf(cfg.Zones[0].DNSSEC)}}
}

// runSigningNode returns one that runs, until it is stopped or the test ends. Ask is
// asked about the parent; nil for nobody.
func runSigningNode(t *testing.T, store fleet.Store, sealer *fleet.Sealer, c *configs.ZoneDNSSEC, ask func(context.Context, string) sighting) *signingNode {
	t.Helper()
	n, err := newSigningNode(t, store, sealer, c)
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, n.stop = context.WithCancel(context.Background())
	n.done.Go(func() { n.fleet.Run(ctx) })
	n.done.Go(func() { n.keys.run(ctx) })
	if ask != nil {
		n.done.Go(func() { n.keys.watchParents(ctx, ask) })
	}
	t.Cleanup(n.halt)
	return n
}

func (n *signingNode) halt() { n.stop(); n.done.Wait() }

// ask returns what the node answers to a question about its apex.
func (n *signingNode) ask(qtype uint16) *dns.Msg {
	n.t.Helper()
	q, m := new(dns.Msg), new(dns.Msg)
	q.SetQuestion("edge.example.", qtype)
	q.SetEdns0(1232, true)
	wire, err := q.Pack()
	if err == nil {
		err = m.Unpack(n.server.answer(request{msg: wire, tcp: true}, nil))
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

// set returns the records of a type that the apex has, and their signatures.
func (n *signingNode) set(qtype uint16) (records []dns.RR, sigs []*dns.RRSIG) {
	n.t.Helper()
	for _, rr := range n.ask(qtype).Answer {
		if sig, ok := rr.(*dns.RRSIG); ok {
			sigs = append(sigs, sig)
		} else {
			records = append(records, rr)
		}
	}
	return records, sigs
}

// tags are those of the keys that the node publishes, in order.
func (n *signingNode) tags() string {
	n.t.Helper()
	var tags []uint16
	records, _ := n.set(dns.TypeDNSKEY)
	for _, rr := range records {
		tags = append(tags, rr.(*dns.DNSKEY).KeyTag())
	}
	slices.Sort(tags)
	return fmt.Sprint(tags)
}

// validate checks the node's answers as one who trusts DS records.
func (n *signingNode) validate(trusted []dns.RR) (signer uint16) {
	n.t.Helper()
	keys, sigs := n.set(dns.TypeDNSKEY)
	find := func(tag uint16) *dns.DNSKEY {
		for _, rr := range keys {
			if key := rr.(*dns.DNSKEY); key.KeyTag() == tag {
				return key
			}
		}
		return nil
	}
	verified := false
	for _, sig := range sigs {
		key := find(sig.KeyTag)
		if key == nil || sig.Verify(key, keys) != nil || !sig.ValidityPeriod(time.Now()) {
			continue
		}
		for _, rr := range trusted {
			ds := rr.(*dns.CDS)
			verified = verified || strings.EqualFold(key.ToDS(ds.DigestType).Digest, ds.Digest)
		}
	}
	if !verified {
		n.t.Fatalf("DS %v does not lead to a signature of %v by %v", trusted, keys, sigs)
	}
	soa, sigs := n.set(dns.TypeSOA)
	for _, sig := range sigs {
		if key := find(sig.KeyTag); key != nil && sig.Verify(key, soa) == nil {
			return sig.KeyTag
		}
	}
	n.t.Fatalf("the SOA is signed by %v, the keys are %v", sigs, keys)
	return 0
}

func testSealer(t *testing.T, digits string) *fleet.Sealer {
	t.Helper()
	sealer, err := fleet.ParseKeys([]byte(strings.Repeat(digits, 32) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return sealer
}

// follower is a parent that does what CDS records say.
type follower struct {
	t  *testing.T
	mu sync.Mutex
	ds []dns.RR // as CDS records
}

// follow takes the CDS records of a node.
func (f *follower) follow(n *signingNode) {
	records, sigs := n.set(dns.TypeCDS)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ds) > 0 && len(records) > 0 && len(sigs) == 0 {
		f.t.Error("CDS records without a signature")
	}
	switch {
	case len(records) == 1 && records[0].(*dns.CDS).Algorithm == 0:
		f.ds = nil
	case len(records) > 0:
		f.ds = records
	}
}

func (f *follower) ask(context.Context, string) sighting {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := []dnssec.DS{}
	for _, rr := range f.ds {
		ds := rr.(*dns.CDS)
		digest := make([]byte, len(ds.Digest)/2)
		fmt.Sscanf(ds.Digest, "%x", &digest)
		answer = append(answer, dnssec.DS{Tag: ds.KeyTag, Algorithm: ds.Algorithm, Type: ds.DigestType, Digest: digest})
	}
	return sighting{at: time.Now(), fresh: true, answers: [][]dnssec.DS{answer}}
}

// newCounter is a source of bytes for keys of no worth.
func newCounter() *counter { return new(counter) }

type counter byte

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		*c++
		p[i] = byte(*c)
	}
	return len(p), nil
}
