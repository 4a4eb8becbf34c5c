package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Verdicts of a program, as linux/bpf.h has them.
const (
	verdictPass = 2
	verdictSend = 3
)

// Trial runs the program in the kernel on single queries, at no interface. It is
// for tests and benchmarks. It belongs to one goroutine.
type Trial struct {
	o     Options
	l     *loaded
	bytes int
}

// trialMAC is the hardware address of the interface that a trial stands for.
var trialMAC = [6]byte{2, 0, 0, 0, 0, 1}

// NewTrial loads the program for a host that has the addresses of Listen. Interface
// and Generic do not matter.
func NewTrial(o Options) (*Trial, error) {
	l, err := load()
	if err != nil {
		return nil, fmt.Errorf("xdp: %w", err)
	}
	t := &Trial{o: o, l: l}
	var local []netip.Addr
	for _, a := range o.Listen {
		local = append(local, a.Addr())
	}
	a := attachment{loaded: l}
	if err := errors.Join(a.listen(endpointsOf(o.Listen, local)), t.trust(math.MaxUint64)); err != nil {
		l.close()
		return nil, err
	}
	return t, nil
}

// trust lets the program trust its image until then, in ns of the monotonic clock.
func (t *Trial) trust(until uint64) error {
	c := controlOf(t.o.Responses, trialMAC[:], until)
	return t.l.Controls.Put(uint32(0), &c)
}

// Update replaces the table, which may be nil.
func (t *Trial) Update(table *Table) error {
	var image []byte
	if table != nil {
		var err error
		if image, err = build(table, t.o.Exempt); err != nil {
			return err
		}
	}
	t.bytes = len(image)
	return t.l.install(image)
}

// Bytes is the size of the image in force.
func (t *Trial) Bytes() int { return t.bytes }

// Close takes the program out of the kernel.
func (t *Trial) Close() { t.l.close() }

// Ask gives the program a query. The answer is nil if it goes to the sockets. It is
// an error if the packet that came back is not one that a host would send.
func (t *Trial) Ask(from, to netip.AddrPort, msg []byte) (answer []byte, err error) {
	packet := frame(from, to, msg)
	verdict, out, err := t.run(packet)
	switch {
	case err != nil:
		return nil, err
	case verdict == verdictPass && string(out) == string(packet):
		return nil, nil
	case verdict != verdictSend:
		return nil, fmt.Errorf("xdp: verdict %d, packet %x", verdict, out)
	}
	sender, receiver, answer, err := parse(out)
	if err != nil {
		return nil, err
	}
	if sender != to || receiver != from {
		return nil, fmt.Errorf("xdp: the answer goes from %v to %v", sender, receiver)
	}
	if want := frame(to, from, answer); string(out[12:]) != string(want[12:]) || string(out[:6]) != string(packet[6:12]) || string(out[6:12]) != string(packet[:6]) {
		return nil, fmt.Errorf("xdp: packet %x, want %x", out, want)
	}
	return answer, nil
}

// Outcomes returns how often each outcome was seen.
func (t *Trial) Outcomes() map[string]int {
	m := metrics{counts: t.l.Outcomes}
	all := make(map[string]int)
	for o := range outcomes {
		all[outcomeNames[o]] = int(m.count(o))
	}
	return all
}

// run gives the program a packet, and returns what became of both.
func (t *Trial) run(packet []byte) (verdict uint32, out []byte, err error) {
	o := ebpf.RunOptions{Data: packet, DataOut: make([]byte, pageSize)}
	verdict, err = t.l.Program.Run(&o)
	return verdict, o.DataOut, err
}

// frame is a packet with a message as a host sends it, to the trial's interface or
// from it.
func frame(from, to netip.AddrPort, msg []byte) []byte {
	p := append([]byte(nil), trialMAC[:]...)
	p = append(p, 2, 0, 0, 0, 0, 2)
	length := uint16(8 + len(msg))
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, length)
	udp = append(append(udp, 0, 0), msg...)
	pseudo := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, 17, byte(length>>8), byte(length))
	check := internetChecksum(append(pseudo, udp...))
	if check == 0 {
		check = math.MaxUint16
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	if from.Addr().Is4() {
		ip := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0}
		binary.BigEndian.PutUint16(ip[2:], 20+length)
		ip = append(append(ip, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
		binary.BigEndian.PutUint16(ip[10:], internetChecksum(ip))
		return append(append(append(p, 0x08, 0x00), ip...), udp...)
	}
	p = append(p, 0x86, 0xdd, 0x60, 0, 0, 0, byte(length>>8), byte(length), 17, 64)
	p = append(append(p, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	return append(p, udp...)
}

// parse reads addresses and message of a packet of frame.
func parse(p []byte) (from, to netip.AddrPort, msg []byte, err error) {
	octets, at := 16, 14+8
	if len(p) >= 14 && p[12] == 0x08 {
		octets, at = 4, 14+12
	}
	if len(p) < at+2*octets+8+12 {
		return from, to, nil, fmt.Errorf("xdp: short packet %x", p)
	}
	source, _ := netip.AddrFromSlice(p[at : at+octets])
	destination, _ := netip.AddrFromSlice(p[at+octets : at+2*octets])
	udp := p[at+2*octets:]
	return netip.AddrPortFrom(source, binary.BigEndian.Uint16(udp)), netip.AddrPortFrom(destination, binary.BigEndian.Uint16(udp[2:])), udp[8:], nil
}

// internetChecksum is that of RFC 1071.
func internetChecksum(p []byte) uint16 {
	sum := uint32(0)
	for i, octet := range p {
		if i%2 == 0 {
			sum += uint32(octet) << 8
		} else {
			sum += uint32(octet)
		}
	}
	for sum > math.MaxUint16 {
		sum = sum>>16 + sum&math.MaxUint16
	}
	return ^uint16(sum)
}
