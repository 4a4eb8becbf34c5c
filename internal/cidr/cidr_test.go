package cidr

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/quick"
)

// random is one of few addresses, in one of few lengths, so that some are alike.
func random(r *rand.Rand) netip.Prefix {
	octets := [16]byte{0x20, byte(r.IntN(3)), 7: byte(r.IntN(3)), 8: byte(r.IntN(2)) << 7, 15: byte(r.IntN(3))}
	switch r.IntN(8) {
	case 0:
		return netip.Prefix{}
	case 1:
		octets = [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: byte(r.IntN(3))}
	case 2, 3, 4:
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(octets[:4])), []int{0, 7, 8, 15, 16, 24, 31, 32}[r.IntN(8)])
	}
	return netip.PrefixFrom(netip.AddrFrom16(octets), []int{0, 1, 15, 48, 63, 64, 65, 127, 128}[r.IntN(9)])
}

// Everything is as the standard library has it.
func TestLikeNetip(t *testing.T) {
	alike := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 1))
		a, b := random(r), random(r)
		p, q := From(a), From(b)
		return p.Netip() == a && p.String() == a.String() && p.Addr() == a.Addr() && p.IsValid() == a.IsValid() &&
			p.Bits() == max(a.Bits(), 0) && p.Is4() == a.Addr().Is4() && p.Is4In6() == a.Addr().Is4In6() &&
			p.Masked().Netip() == a.Masked() && p.Compare(q) == a.Compare(b) && (p == q) == (a == b) &&
			p.Contains(b.Addr()) == a.Contains(b.Addr())
	}
	if err := quick.Check(alike, &quick.Config{MaxCount: 100_000}); err != nil {
		t.Error(err)
	}
}

func TestBit(t *testing.T) {
	for _, text := range []string{"255.0.1.0/24", "8000::1/128", "2001:db8::8000:0:0:0/65"} {
		p := MustParse(text)
		octets := p.Addr().AsSlice()
		for i := range 8 * len(octets) {
			if want := uint64(octets[i/8] >> (7 - i%8) & 1); p.Bit(i) != want {
				t.Errorf("%s: bit %d is %d", text, i, p.Bit(i))
			}
		}
	}
}

func TestContainsNoZone(t *testing.T) {
	link := MustParse("fe80::/10")
	if !link.Contains(netip.MustParseAddr("fe80::1")) || link.Contains(netip.MustParseAddr("fe80::1%eth0")) {
		t.Error("a zone is another address")
	}
}

// Lists come into the same order.
func TestSorts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var theirs []netip.Prefix
	var ours []Prefix
	for range 1000 {
		p := random(r)
		theirs, ours = append(theirs, p), append(ours, From(p))
	}
	slices.SortFunc(theirs, netip.Prefix.Compare)
	slices.SortFunc(ours, Prefix.Compare)
	for i := range ours {
		if ours[i].Netip() != theirs[i] {
			t.Fatalf("at %d: %v, want %v", i, ours[i], theirs[i])
		}
	}
}
