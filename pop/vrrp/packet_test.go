package vrrp

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	from4 = netip.MustParseAddr("192.0.2.1")
	from6 = netip.MustParseAddr("fe80::1")
)

func sample(from netip.Addr) (advertisement, Family) {
	a := advertisement{vrid: 51, priority: 200, interval: 100 * time.Millisecond, addresses: []netip.Addr{netip.MustParseAddr("192.0.2.100")}}
	if from.Is6() {
		a.addresses = []netip.Addr{netip.MustParseAddr("fe80::100"), netip.MustParseAddr("2001:db8::100")}
		return a, IPv6
	}
	return a, IPv4
}

func received(from netip.Addr, payload []byte) packet {
	to := IPv4.group()
	if from.Is6() {
		to = IPv6.group()
	}
	return packet{from: from, to: to, hopLimit: 255, payload: payload}
}

// The checksums were worked out apart from this code.
func TestMarshal(t *testing.T) {
	for _, c := range []struct {
		name  string
		from  netip.Addr
		plain bool
		want  string
	}{
		{"ipv4", from4, false, "3133c801 000a a1cb c0000264"},
		{"ipv4 plain", from4, true, "3133c801 000a 445c c0000264"},
		{"ipv6", from6, false, "3133c802 000a da56 fe800000000000000000000000000100 20010db8000000000000000000000100"},
		{"ipv6 plain has no meaning", from6, true, "3133c802 000a da56 fe800000000000000000000000000100 20010db8000000000000000000000100"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, family := sample(c.from)
			got := a.marshal(c.from, family, c.plain)
			want, err := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
			back, why := parse(received(c.from, got), 51)
			if why != discardNone || back.vrid != a.vrid || back.priority != a.priority || back.interval != a.interval || !slices.Equal(back.addresses, a.addresses) {
				t.Errorf("parsed as %+v, %q", back, why)
			}
		})
	}
}

// repair sets the checksum right.
func repair(b []byte, from netip.Addr) []byte {
	b[6], b[7] = 0, 0
	p := received(from, b)
	sum := ^fold(add(pseudoHeader(p.from, p.to, len(b), protocol), b))
	b[6], b[7] = byte(sum>>8), byte(sum)
	return b
}

func TestParseDiscards(t *testing.T) {
	for _, from := range []netip.Addr{from4, from6} {
		a, family := sample(from)
		good := a.marshal(from, family, false)
		edit := func(at int, value byte) []byte {
			b := bytes.Clone(good)
			b[at] = value
			return repair(b, from)
		}
		broken := bytes.Clone(good)
		broken[2]++
		for _, c := range []struct {
			name string
			edit func(*packet)
			want discard
		}{
			{"valid", func(*packet) {}, discardNone},
			{"unicast", func(p *packet) { p.to = from.Next() }, discardDestination},
			{"hop limit 254", func(p *packet) { p.hopLimit = 254 }, discardHopLimit},
			{"hop limit before version", func(p *packet) { p.hopLimit, p.payload = 1, edit(0, 0x21) }, discardHopLimit},
			{"version 2", func(p *packet) { p.payload = edit(0, 0x21) }, discardVersion},
			{"version before type", func(p *packet) { p.payload = edit(0, 0x42) }, discardVersion},
			{"type 2", func(p *packet) { p.payload = edit(0, 0x32) }, discardType},
			{"type of one octet", func(p *packet) { p.payload = []byte{0x32} }, discardType},
			{"empty", func(p *packet) { p.payload = nil }, discardTruncated},
			{"header cut", func(p *packet) { p.payload = good[:7] }, discardTruncated},
			{"list cut", func(p *packet) { p.payload = good[:len(good)-1] }, discardTruncated},
			{"more addresses than room", func(p *packet) { p.payload = edit(3, 9) }, discardTruncated},
			{"broken", func(p *packet) { p.payload = broken }, discardChecksum},
			{"another sender's checksum", func(p *packet) { p.from = from.Next() }, discardChecksum},
			{"checksum before vrid", func(p *packet) { p.payload = slices.Concat([]byte{0x31, 52}, good[2:]) }, discardChecksum},
			{"another virtual router", func(p *packet) { p.payload = edit(1, 52) }, discardVRID},
			{"interval 0", func(p *packet) { p.payload = edit(5, 0) }, discardInterval},
			{"no addresses", func(p *packet) { p.payload = edit(3, 0) }, discardCount},
			{"reserved bits are ignored", func(p *packet) { p.payload = edit(4, 0xf0) }, discardNone},
			{"octets after the list", func(p *packet) { p.payload = repair(append(bytes.Clone(good), 1, 2, 3), from) }, discardNone},
		} {
			t.Run(string(family)+"/"+c.name, func(t *testing.T) {
				p := received(from, good)
				c.edit(&p)
				if _, got := parse(p, 51); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		}
	}
}

// Over IPv6 the pseudo-header has never been in doubt.
func TestParsePlainChecksum(t *testing.T) {
	for _, c := range []struct {
		from netip.Addr
		want discard
	}{{from4, discardNone}, {from6, discardChecksum}} {
		a, _ := sample(c.from)
		// Marshalled as IPv4, a checksum may be plain.
		if _, got := parse(received(c.from, a.marshal(c.from, IPv4, true)), 51); got != c.want {
			t.Errorf("from %s: %q, want %q", c.from, got, c.want)
		}
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	for _, from := range []netip.Addr{from4, from6} {
		a, family := sample(from)
		good := a.marshal(from, family, false)
		for bit := range len(good) * 8 {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			if _, why := parse(received(from, b), 51); why == discardNone {
				t.Errorf("%s: bit %d flipped, and accepted", family, bit)
			}
		}
	}
}

func TestSplitIPv4(t *testing.T) {
	header := []byte{0x46, 0, 0, 26, 0, 0, 0, 0, 255, protocol, 0, 0, 192, 0, 2, 1, 224, 0, 0, 18, 0, 0, 0, 0, 7, 8, 9, 9}
	p, ok := splitIPv4(header)
	if !ok || p.from != from4 || p.to != IPv4.group() || p.hopLimit != 255 || !bytes.Equal(p.payload, []byte{7, 8}) {
		t.Errorf("got %+v, %v", p, ok)
	}
	for name, b := range map[string][]byte{
		"short":             header[:19],
		"IPv6":              slices.Concat([]byte{0x60}, header[1:]),
		"header too short":  slices.Concat([]byte{0x44}, header[1:]),
		"header past total": slices.Concat([]byte{0x47}, header[1:]),
		"total past end":    slices.Concat(header[:3], []byte{29}, header[4:]),
	} {
		if _, ok := splitIPv4(b); ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, from := range []netip.Addr{from4, from6} {
		a, family := sample(from)
		f.Add(a.marshal(from, family, false), from.Is6())
		f.Add(a.marshal(from, family, true), from.Is6())
		a.priority, a.addresses = 0, nil
		f.Add(a.marshal(from, family, false), from.Is6())
	}
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		from, family, size := from4, IPv4, 4
		if v6 {
			from, family, size = from6, IPv6, 16
		}
		// Most of what the fuzzer makes has a wrong checksum: look behind it.
		parse(received(from, bytes.Clone(b)), 51)
		if len(b) >= headerLen && len(b) < 1<<16 {
			b = repair(bytes.Clone(b), from)
		}
		p := received(from, b)
		a, why := parse(p, 51)
		if why != discardNone {
			if !slices.Contains(discards(), why) {
				t.Fatalf("unlisted reason %q", why)
			}
			return
		}
		if a.vrid != 51 || a.interval < MinInterval || a.interval > MaxInterval || len(a.addresses) == 0 || len(a.addresses)*size > len(b)-headerLen {
			t.Fatalf("%x parsed as %+v", b, a)
		}
		again, why := parse(received(from, a.marshal(from, family, false)), 51)
		if why != discardNone || again.priority != a.priority || again.interval != a.interval || !slices.Equal(again.addresses, a.addresses) {
			t.Fatalf("%+v came back as %+v, %q", a, again, why)
		}
	})
}

func FuzzSplitIPv4(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 21, 0, 0, 0, 0, 255, protocol, 0, 0, 192, 0, 2, 1, 224, 0, 0, 18, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := splitIPv4(b); ok && (len(p.payload) > len(b)-20 || !p.from.Is4() || !p.to.Is4()) {
			t.Fatalf("%x split into %+v", b, p)
		}
	})
}
