package shield

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
)

// openWith is an OPEN with optional parameters, their length already in front.
func openWith(hold uint16, parameters ...byte) []byte {
	body := []byte{4, 0xfb, 0xf4, 0, 0, 10, 0, 0, 1}
	binary.BigEndian.PutUint16(body[3:], hold)
	return encode(TypeOpen, append(body, parameters...))
}

// capabilities is one parameter with capabilities, and the length of it all.
func capabilities(caps ...byte) []byte {
	return append([]byte{byte(len(caps) + 2), 2, byte(len(caps))}, caps...)
}

func TestOpen(t *testing.T) {
	plain := *plainOpen(9)
	with := func(change func(*Open)) Open {
		o := plain
		change(&o)
		return o
	}
	multiprotocol := []byte{1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1}
	both := with(func(o *Open) { o.IPv6 = true })
	tests := []struct {
		name string
		msg  []byte
		want Open
	}{
		{"no parameters", openWith(9, 0), plain},
		{"no capability", openWith(9, capabilities()...), plain},
		{"both families", openWith(9, capabilities(multiprotocol...)...), both},
		{"IPv6 only", openWith(9, capabilities(multiprotocol[6:]...)...), with(func(o *Open) { o.IPv4, o.IPv6 = false, true })},
		{"neither family", openWith(9, capabilities(1, 4, 0, 25, 0, 70)...), with(func(o *Open) { o.IPv4 = false })},
		{"multicast is another one", openWith(9, capabilities(1, 4, 0, 1, 0, 2)...), with(func(o *Open) { o.IPv4 = false })},
		{"families in two parameters", openWith(9, 16, 2, 6, 1, 4, 0, 1, 0, 1, 2, 6, 1, 4, 0, 2, 0, 1), both},
		{"a family twice", openWith(9, capabilities(append(multiprotocol, multiprotocol...)...)...), both},
		{"IPv6 next hop", openWith(9, capabilities(5, 12, 0, 1, 0, 128, 0, 2, 0, 1, 0, 1, 0, 2)...), with(func(o *Open) { o.NextHopIPv6 = true })},
		{"IPv6 next hop for another family", openWith(9, capabilities(5, 6, 0, 1, 0, 2, 0, 2)...), plain},
		{"four octets", openWith(9, capabilities(65, 4, 0, 0, 0xfb, 0xf4)...), with(func(o *Open) { o.FourOctetAS = true })},
		{"unknown capabilities", openWith(9, capabilities(200, 3, 1, 2, 3, 201, 0, 64, 2, 0xc0, 120, 70, 0, 2, 0)...), plain},
		{"extended length", openWith(9, append([]byte{255, 255, 0, 15, 2, 0, 12}, multiprotocol...)...), both},
		{"extended length with another length before", openWith(9, append([]byte{7, 255, 0, 15, 2, 0, 12}, multiprotocol...)...), both},
		{"extended length of nothing", openWith(9, 255, 255, 0, 0), plain},
		{"longest hold time", openWith(65535, 0), with(func(o *Open) { o.HoldTime = 65535 })},
	}
	for _, test := range tests {
		got, err := parseOpen(test.msg, peerASN)
		if err != nil || *got != test.want {
			t.Errorf("%s: %+v, %v, want %+v", test.name, got, err, test.want)
			continue
		}
		checkEngineOpen(t, got)
	}
}

// checkEngineOpen checks what the engine gets of an OPEN.
func checkEngineOpen(t *testing.T, o *Open) {
	t.Helper()
	msg, err := readMessage(bufio.NewReaderSize(bytes.NewReader(o.message(engineSide)), maxLength))
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseOpen(msg, o.ASN)
	want := *o
	want.ID = engineSide
	if err != nil || *again != want {
		t.Errorf("the engine reads %+v, %v, want %+v", again, err, want)
	}
}

func TestOpenErrors(t *testing.T) {
	const other = 64501
	long := make([]byte, 300)
	tests := []struct {
		name string
		msg  []byte
		want []byte
	}{
		{"version 3", append(encode(TypeOpen, []byte{3}), openWith(9, 0)[headerLength+1:]...), notification(2, 1, 0, 4)},
		{"version 5", append(encode(TypeOpen, []byte{5}), openWith(9, 0)[headerLength+1:]...), notification(2, 1, 0, 4)},
		{"another AS", openWith(9, capabilities(65, 4, 0, 0, 0xfb, 0xf5)...), notification(2, 2)},
		{"AS 0", openWith(9, capabilities(65, 4, 0, 0, 0, 0)...), notification(2, 2)},
		{"AS 0 in two octets", encode(TypeOpen, append([]byte{4, 0, 0, 0, 9, 10, 0, 0, 1}, capabilities(65, 4, 0, 0, 0xfb, 0xf4)...)), notification(2, 2)},
		{"hold time 0", openWith(0, 0), notification(2, 6)},
		{"hold time 1", openWith(1, 0), notification(2, 6)},
		{"hold time 2", openWith(2, 0), notification(2, 6)},
		{"no identifier", encode(TypeOpen, []byte{4, 0xfb, 0xf4, 0, 9, 0, 0, 0, 0, 0}), notification(2, 3)},
		{"authentication parameter", openWith(9, 3, 1, 1, 0), notification(2, 4)},
		{"unknown parameter", openWith(9, 2, 77, 0), notification(2, 4)},
		{"type 255 not in front", openWith(9, 4, 2, 0, 255, 0), notification(2, 4)},
		{"extended unknown parameter", openWith(9, 255, 255, 0, 3, 77, 0, 0), notification(2, 4)},
		{"fewer parameters than said", openWith(9, 9, 2, 6, 1, 4, 0, 1, 0, 1), notification(2, 0)},
		{"more parameters than said", openWith(9, 7, 2, 6, 1, 4, 0, 1, 0, 1), notification(2, 0)},
		{"parameters where none are", openWith(9, 0, 2, 0), notification(2, 0)},
		{"half a parameter", openWith(9, 1, 2), notification(2, 0)},
		{"parameter beyond the end", openWith(9, 4, 2, 3, 0, 0), notification(2, 0)},
		{"capability beyond the end", openWith(9, capabilities(1, 5, 0, 1, 0, 1)...), notification(2, 0)},
		{"half a capability", openWith(9, capabilities(1)...), notification(2, 0)},
		{"short family", openWith(9, capabilities(1, 3, 0, 1, 0)...), notification(2, 0)},
		{"long family", openWith(9, capabilities(1, 5, 0, 1, 0, 1, 0)...), notification(2, 0)},
		{"short AS", openWith(9, capabilities(65, 3, 0, 0, 0)...), notification(2, 0)},
		{"odd next hops", openWith(9, capabilities(5, 7, 0, 1, 0, 1, 0, 2, 0)...), notification(2, 0)},
		{"extended, too short", openWith(9, 255, 255, 0), notification(2, 0)},
		{"extended, less than said", openWith(9, 255, 255, 0, 9, 2, 0, 0), notification(2, 0)},
		{"extended, half a length", openWith(9, 255, 255, 0, 2, 2, 0), notification(2, 0)},
		{"extended, capability beyond the end", openWith(9, append([]byte{255, 255, 1, 47, 2, 1, 44, 9, 255}, long[:298]...)...), notification(2, 0)},
	}
	for _, test := range tests {
		binary.BigEndian.PutUint16(test.msg[markerLength:], uint16(len(test.msg)))
		o, err := parseOpen(test.msg, peerASN)
		var v *violation
		if !errors.As(err, &v) || !bytes.Equal(v.message(), test.want) {
			t.Errorf("%s: %+v, %v, want % x", test.name, o, err, test.want[headerLength:])
		}
	}
	if _, err := parseOpen(openWith(9, 0), other); err == nil {
		t.Error("the OPEN of another AS was taken")
	}
}

// TestOpenASTrans is a peer whose number needs four octets.
func TestOpenASTrans(t *testing.T) {
	const asn = 4200000001
	caps := binary.BigEndian.AppendUint32([]byte{65, 4}, asn)
	msg := openWith(9, capabilities(caps...)...)
	binary.BigEndian.PutUint16(msg[headerLength+1:], asTrans)
	o, err := parseOpen(msg, asn)
	if err != nil || o.ASN != asn || !o.FourOctetAS {
		t.Fatalf("%+v, %v", o, err)
	}
	checkEngineOpen(t, o)
	engine := o.message(engineSide)
	if as := binary.BigEndian.Uint16(engine[headerLength+1:]); as != asTrans {
		t.Errorf("the engine reads AS %d in two octets", as)
	}
}

// FuzzOpen parses the body of an OPEN: either it is refused with a message that
// RFC 4271 section 6.2 knows, or the engine gets one that it can read.
func FuzzOpen(f *testing.F) {
	f.Add(openWith(9, 0)[headerLength:])
	f.Add(openWith(9, capabilities(1, 4, 0, 1, 0, 1, 2, 0, 65, 4, 0, 0, 0xfb, 0xf4, 5, 6, 0, 1, 0, 1, 0, 2)...)[headerLength:])
	f.Add(openWith(9, 255, 255, 0, 9, 2, 0, 6, 1, 4, 0, 2, 0, 1)[headerLength:])
	f.Add(openWith(9, 5, 1, 1, 0, 2, 0)[headerLength:])
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) < openLength || len(body) > maxLength-headerLength {
			t.Skip("not an OPEN")
		}
		o, err := parseOpen(encode(TypeOpen, body), peerASN)
		if err != nil {
			var v *violation
			if !errors.As(err, &v) || v.note.Code != codeOpen || v.note.Subcode > 6 || v.note.Subcode == 5 {
				t.Fatal(err)
			}
			return
		}
		if o.ASN != peerASN || o.HoldTime < minHoldTime || o.ID == (netip.Addr{}) {
			t.Errorf("%+v was taken", o)
		}
		checkEngineOpen(t, o)
		for _, marker := range o.endOfRIB() {
			if _, err := readMessage(bufio.NewReader(bytes.NewReader(marker))); err != nil {
				t.Error(err)
			}
		}
	})
}
