package gslb

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// FuzzRespond gives the server any bytes, and checks what holds for the answer
// to all of them. It goes around the recovery from faults.
func FuzzRespond(f *testing.F) {
	v := testView(f)
	for _, q := range []*dns.Msg{
		asker("www.edge.example", dns.TypeA),
		asker("x.old.edge.example", dns.TypeAAAA),
		asker("a.wild.edge.example", dns.TypeANY),
		withSubnet("www.edge.example", subnet("203.0.113.0/24")),
		withSubnet("steered.edge.example", subnet("2001:db8:a::/48")),
		withSubnet("large.edge.example", []byte{0, 0, 0, 0}),
		withSubnet("www.edge.example", []byte{0, 1, 23, 0, 198, 51, 101}),
	} {
		wire, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, false, uint64(1))
	}
	f.Fuzz(func(t *testing.T, msg []byte, tcp bool, random uint64) {
		before := bytes.Clone(msg)
		out := v.respond(request{msg: msg, from: netip.MustParseAddr("198.51.100.1"), tcp: tcp, random: random})
		if !bytes.Equal(msg, before) {
			t.Fatal("the query was changed")
		}
		if len(msg) < 12 || msg[2]&0x80 != 0 {
			if out.msg != nil {
				t.Fatalf("answered %x", out.msg)
			}
			return
		}
		got := unpack(t, out.msg)
		if !got.Response || got.Id != binary.BigEndian.Uint16(msg) || got.Opcode != int(msg[2]>>3&15) ||
			got.RecursionDesired != (msg[2]&1 == 1) || got.RecursionAvailable || got.Zero || got.AuthenticatedData || got.CheckingDisabled {
			t.Errorf("header %s", got.MsgHdr.String())
		}
		if got.Rcode == dns.RcodeServerFailure {
			t.Error("no query is beyond the server")
		}
		if !tcp && len(out.msg) > udpPayload || got.Truncated && (tcp || len(got.Answer)+len(got.Ns) > 0) {
			t.Errorf("%d octets, truncated %v", len(out.msg), got.Truncated)
		}
		if got.Rcode == dns.RcodeFormatError || got.Rcode == dns.RcodeNotImplemented || got.Rcode == dns.RcodeRefused || got.Rcode == dns.RcodeBadVers {
			if len(got.Answer)+len(got.Ns) > 0 || got.Authoritative {
				t.Errorf("refused, but answered: %v", got)
			}
		}
		// The question comes back octet by octet: it cannot be compressed.
		if len(got.Question) == 1 && !bytes.HasPrefix(out.msg[12:], msg[12:12+questionLength(msg)]) {
			t.Errorf("question %x, asked %x", out.msg[12:], msg[12:])
		}
		// A subnet is given back only if one came, the same but for its scope.
		if raw := rawSubnet(t, out.msg); raw != nil {
			asked := bytes.Clone(raw)
			asked[3] = 0
			if !bytes.Contains(msg, asked) {
				t.Errorf("subnet %x was not asked", raw)
			}
			if raw[3] > 32 && raw[1] == 1 || raw[3] > 128 || raw[2] == 0 && raw[3] != 0 {
				t.Errorf("scope of %x", raw)
			}
		}
		for _, rr := range got.Answer {
			if a, ok := rr.(*dns.A); ok && a.A.String() == "192.0.2.99" {
				t.Error("the zone's address at a steered name shows")
			}
		}
	})
}

// questionLength is the length of the question of a message that has a good one.
func questionLength(msg []byte) int {
	off := 12
	for msg[off] != 0 {
		off += 1 + int(msg[off])
	}
	return off + 5 - 12
}
