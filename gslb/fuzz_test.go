package gslb

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

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
		if !tcp && len(out.msg) > payload(msg) || got.Truncated && (tcp || len(got.Answer)+len(got.Ns) > 0) {
			t.Errorf("%d octets, truncated %v", len(out.msg), got.Truncated)
		}
		if got.Rcode == dns.RcodeFormatError || got.Rcode == dns.RcodeNotImplemented || got.Rcode == dns.RcodeRefused || got.Rcode == dns.RcodeBadVers {
			if len(got.Answer)+len(got.Ns) > 0 || got.Authoritative {
				t.Errorf("refused, but answered: %v", got)
			}
			// Nobody gains by what is refused: a made-up sender gets an OPT record and
			// a cookie at most that the query had not.
			if len(out.msg) > len(msg)+optHeader+4+fullCookie+4+len(v.nsid) {
				t.Errorf("%d octets for %d", len(out.msg), len(msg))
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

// payload is what a message lets the answer have over UDP: 512 octets without an
// OPT record (RFC 1035 section 4.2.1), else what that says, as far as the server
// goes along. It is read without the library and without the server's own reader.
func payload(msg []byte) int {
	count := func(off int) int { return int(binary.BigEndian.Uint16(msg[off:])) }
	off := 12
	for range count(4) {
		if off = skipName(msg, off); off < 0 || off+4 > len(msg) {
			return 512
		}
		off += 4
	}
	limit := 512
	for range count(6) + count(8) + count(10) {
		off = skipName(msg, off)
		if off < 0 || off+10 > len(msg) {
			break
		}
		if count(off) == int(dns.TypeOPT) {
			limit = max(limit, min(count(off+2), udpPayload))
		}
		off += 10 + count(off+8)
	}
	return limit
}

// FuzzStream gives a connection any bytes, in pieces of any length, and checks
// that it comes to its end, that whatever goes out is whole messages, each to one
// of the queries, and that no query before a broken one is left without.
func FuzzStream(f *testing.F) {
	s := &Server{log: quiet, m: newMetrics(nil), cfg: Config{IdleTimeout: 10 * time.Second}}
	v := testView(f)
	v.idle = s.cfg.IdleTimeout
	s.view.Store(v)
	frame := func(messages ...*dns.Msg) (stream []byte) {
		for _, m := range messages {
			wire, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(wire))), wire...)
		}
		return stream
	}
	f.Add(frame(asker("www.edge.example", dns.TypeA), asker("large.edge.example", dns.TypeTXT)), uint8(3))
	f.Add(frame(asker("edge.example", dns.TypeAXFR)), uint8(1))
	f.Add(append(frame(asker("nope.edge.example", dns.TypeA)), 0xff, 0xff, 1, 2, 3), uint8(200))
	f.Add([]byte{0, 0, 0, 1, 0}, uint8(0))
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8) {
		client, server := net.Pipe()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.serveConn(ctx, server, netip.MustParseAddr("198.51.100.1"), false)
		}()
		// What comes out is read while the stream goes in: a pipe holds nothing.
		out := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(client)
			out <- all
		}()
		for rest := stream; len(rest) > 0; {
			n := min(int(piece)+1, len(rest))
			if _, err := client.Write(rest[:n]); err != nil {
				break // it has had enough
			}
			rest = rest[n:]
		}
		// A pipe cannot be closed by half: the server is stopped instead, when it has
		// read all. What it has read it answers.
		stop()
		<-ended
		asked, must, broken := make(map[uint16]int), make(map[uint16]int), false
		for rest := stream; len(rest) >= 2; {
			n := int(binary.BigEndian.Uint16(rest))
			if rest = rest[2:]; n > len(rest) {
				break
			}
			if n < 12 || rest[2]&0x80 != 0 {
				broken = true // what comes after it may be answered or not
			} else {
				id := binary.BigEndian.Uint16(rest)
				if asked[id]++; !broken {
					must[id]++
				}
			}
			rest = rest[n:]
		}
		for all := <-out; len(all) > 0; {
			if len(all) < 2 || len(all) < 2+int(binary.BigEndian.Uint16(all)) {
				t.Fatalf("half a message: %x", all)
			}
			n := int(binary.BigEndian.Uint16(all))
			got := unpack(t, all[2:2+n])
			if !got.Response || asked[got.Id] == 0 {
				t.Errorf("answer to nothing: %v", got)
			}
			asked[got.Id]--
			must[got.Id]--
			all = all[2+n:]
		}
		for id, left := range must {
			if left > 0 {
				t.Errorf("%d queries of id %d without answer", left, id)
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
