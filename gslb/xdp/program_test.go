package xdp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	server4 = netip.MustParseAddrPort("192.0.2.53:53")
	server6 = netip.MustParseAddrPort("[2001:db8::53]:53")
	client4 = netip.MustParseAddrPort("198.51.100.7:4000")
	client6 = netip.MustParseAddrPort("[2001:db8:a::7]:4000")
)

func trial(t testing.TB, o Options, table *Table) *Trial {
	t.Helper()
	o.Listen = []netip.AddrPort{server4, server6}
	x, err := NewTrial(o)
	if errors.Is(err, os.ErrPermission) && os.Getuid() != 0 {
		t.Skip("programs in the kernel need root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	if err := x.Update(table); err != nil {
		t.Fatal(err)
	}
	return x
}

// only is a table of one entry.
func only(name string, e Entry) *Table {
	return &Table{Names: func(yield func(string, Entry) bool) { yield(name, e) }}
}

const www = "\x03www\x07example\x00"

// text is an answer whose body says which one it is.
func text(body string) *Answer {
	return &Answer{Flags: 0x0400, Counts: [3]uint16{1, 0, 0}, Body: []byte(body), Base: len(www)}
}

func hosts() *Table { return only(www, Entry{At: Answers{Types: []Typed{{1, text("an address")}}}}) }

// query is one for A, with what follows the question.
func query(name string, rest ...byte) []byte {
	additional := byte(0)
	if len(rest) > 0 {
		additional = 1
	}
	msg := append([]byte{0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, additional}, name...)
	return append(append(msg, 0, 1, 0, 1), rest...)
}

func opt(size uint16, options ...byte) []byte {
	return append([]byte{0, 0, 41, byte(size >> 8), byte(size), 0, 0, 0, 0, 0, byte(len(options))}, options...)
}

func subnet(data ...byte) []byte {
	return opt(1232, append([]byte{0, 8, 0, byte(len(data))}, data...)...)
}

// What is not a query of the usual form to the server goes on untouched.
func TestPasses(t *testing.T) {
	x := trial(t, Options{}, hosts())
	good := frame(client4, server4, query(www))
	good6 := frame(client6, server6, query(www))
	for _, p := range [][]byte{good, good6} {
		if verdict, _, err := x.run(p); err != nil || verdict != verdictSend {
			t.Fatalf("verdict %d, %v", verdict, err)
		}
	}
	with := func(p []byte, at int, octets ...byte) []byte {
		p = slices.Clone(p)
		copy(p[at:], octets)
		return p
	}
	// changed is with for a packet; an IPv4 header's checksum matches again.
	changed := func(p []byte, at int, octets ...byte) []byte {
		if p = with(p, at, octets...); p[12] == 8 {
			p[24], p[25] = 0, 0
			binary.BigEndian.PutUint16(p[24:], internetChecksum(p[14:34]))
		}
		return p
	}
	ask := func(msg []byte) []byte { return frame(client4, server4, msg) }
	from := func(a string, to netip.AddrPort) []byte {
		return frame(netip.AddrPortFrom(netip.MustParseAddr(a), 4000), to, query(www))
	}
	for about, p := range map[string][]byte{
		"another type of frame":   changed(good, 12, 0x08, 0x06),
		"another receiver":        changed(good, 0, 2, 0, 0, 0, 0, 9),
		"a group":                 changed(good, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"IP options":              changed(good, 14, 0x46),
		"version 6 in IPv4":       changed(good, 14, 0x65),
		"version 4 in IPv6":       changed(good6, 14, 0x40),
		"a first fragment":        changed(good, 20, 0x20, 0),
		"a later fragment":        changed(good, 20, 0, 1),
		"TCP":                     changed(good, 23, 6),
		"an extension header":     changed(good6, 20, 0),
		"a broken IP header":      append(slices.Clone(good[:24]), append([]byte{good[24] ^ 1}, good[25:]...)...),
		"IP longer than UDP":      changed(good, 16, 0, 200),
		"UDP shorter than IP":     changed(good, 38, 0, 20),
		"UDP without message":     changed(good6, 58, 0, 8),
		"another port":            frame(client4, netip.MustParseAddrPort("192.0.2.53:54"), query(www)),
		"another address":         frame(client4, netip.MustParseAddrPort("192.0.2.54:53"), query(www)),
		"from port 0":             frame(netip.MustParseAddrPort("198.51.100.7:0"), server4, query(www)),
		"from loopback":           from("127.0.0.1", server4),
		"from nowhere":            from("0.0.0.0", server4),
		"from a group":            from("224.0.0.1", server4),
		"from broadcast":          from("255.255.255.255", server4),
		"from itself":             from("192.0.2.53", server4),
		"from IPv6 itself":        from("2001:db8::53", server6),
		"from the link":           from("fe80::1", server6),
		"from IPv6 loopback":      from("::1", server6),
		"from an IPv6 group":      from("ff02::1", server6),
		"from IPv4 in IPv6":       from("::ffff:198.51.100.7", server6),
		"a damaged question":      changed(good, 55, 'x'),
		"a damaged question, v6":  changed(good6, 75, 'x'),
		"no checksum in IPv6":     changed(good6, 60, 0, 0),
		"a checksum to be filled": changed(good, 40, 1, 2),
		"cut short":               good[:len(good)-3],
		"a frame of 14 octets":    good[:14],

		"a response":            ask(with(query(www), 2, 0x81)),
		"NOTIFY":                ask(with(query(www), 2, 0x20)),
		"no question":           ask(with(query(www), 5, 0)),
		"two questions":         ask(with(query(www), 5, 2)),
		"256 questions":         ask(with(query(www), 4, 1, 0)),
		"an answer":             ask(with(query(www), 7, 1)),
		"an authority":          ask(with(query(www), 9, 1)),
		"two additionals":       ask(with(query(www, opt(1232)...), 11, 2)),
		"256 additionals":       ask(with(query(www, opt(1232)...), 10, 1, 0)),
		"a promise of OPT":      ask(with(query(www), 11, 1)),
		"an unannounced OPT":    ask(append(query(www), opt(1232)...)),
		"trailing octets":       ask(append(query(www, opt(1232)...), 0)),
		"class CH":              ask(with(query(www), 12+len(www)+3, 3)),
		"ANY":                   ask(with(query(www), 12+len(www), 0, 255)),
		"type 0":                ask(with(query(www), 12+len(www), 0, 0)),
		"OPT as a type":         ask(with(query(www), 12+len(www), 0, 41)),
		"DS":                    ask(with(query(www), 12+len(www), 0, 43)),
		"another type":          ask(with(query(www), 12+len(www), 0, 16)),
		"a compressed name":     ask(query("\x03www\xc0\x0c")),
		"a label of 64 octets":  ask(query("\x40" + string(make([]byte, 64)) + "\x00")),
		"a name without end":    ask(query("\x03www\x07exampl")),
		"a name that is longer": ask(query("\x3f" + string(make([]byte, 63)) + "\x3f" + string(make([]byte, 63)) + "\x00")),
		"the root":              ask(query("\x00")),
		"another name":          ask(query("\x03wwx\x07example\x00")),
		"a name above":          ask(query("\x07example\x00")),
		"a name below":          ask(query("\x01x" + www)),
		"a name in one label":   ask(query("\x0bwww\x07example\x00")),
		"an answer only":        ask(nil),

		"EDNS version 1":        ask(query(www, with(opt(1232), 6, 1)...)),
		"OPT at a name":         ask(query(www, with(opt(1232), 0, 1)...)),
		"another record":        ask(query(www, with(opt(1232), 2, 42)...)),
		"a short OPT":           ask(query(www, opt(1232)[:10]...)),
		"a wrong length":        ask(query(www, with(opt(1232), 10, 4)...)),
		"options that are cut":  ask(query(www, opt(1232, 0, 8, 0)...)),
		"a cookie":              ask(query(www, opt(1232, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8)...)),
		"a subnet and a cookie": ask(query(www, opt(1232, 0, 8, 0, 4, 0, 1, 0, 0, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8)...)),
		"two subnets":           ask(query(www, opt(1232, 0, 8, 0, 4, 0, 1, 0, 0, 0, 8, 0, 4, 0, 1, 0, 0)...)),
		"a subnet too short":    ask(query(www, subnet(0, 1, 0)...)),
		"no family":             ask(query(www, subnet(0, 0, 0, 0)...)),
		"family 3":              ask(query(www, subnet(0, 3, 8, 0, 10)...)),
		"a scope":               ask(query(www, subnet(0, 1, 8, 8, 10)...)),
		"more than 32 bits":     ask(query(www, subnet(0, 1, 33, 0, 10, 1, 1, 1, 0)...)),
		"more than 128 bits":    ask(query(www, subnet(append([]byte{0, 2, 129, 0}, make([]byte, 17)...)...)...)),
		"a missing octet":       ask(query(www, subnet(0, 1, 24, 0, 10, 1)...)),
		"an octet too many":     ask(query(www, subnet(0, 1, 8, 0, 10, 0)...)),
		"bits beyond":           ask(query(www, subnet(0, 1, 23, 0, 10, 1, 1)...)),
		"how absence is proved": ask(query(www, with(opt(1232), 7, 0xc0)...)),
	} {
		verdict, out, err := x.run(p)
		if len(p) <= 14 && errors.Is(err, unix.EINVAL) {
			continue // the kernel itself wants more
		}
		if err != nil || verdict != verdictPass || !bytes.Equal(out, p) {
			t.Errorf("%s: verdict %d, %v\n%x\n%x", about, verdict, err, p, out)
		}
	}
}

func TestTagged(t *testing.T) {
	x := trial(t, Options{}, hosts())
	for _, plain := range [][]byte{frame(client4, server4, query(www)), frame(client6, server6, query(www))} {
		tag := []byte{0x81, 0, 0x60, 7}
		tagged := slices.Concat(plain[:12], tag, plain[12:])
		_, want, err := x.run(plain)
		if err != nil {
			t.Fatal(err)
		}
		verdict, got, err := x.run(tagged)
		if err != nil || verdict != verdictSend || !bytes.Equal(got, slices.Concat(want[:12], tag, want[12:])) {
			t.Errorf("verdict %d, %v: %x, want %x", verdict, err, got, want)
		}
		twice := slices.Concat(plain[:12], []byte{0x81, 0, 0, 1}, tag, plain[12:])
		if verdict, _, err := x.run(twice); err != nil || verdict != verdictPass {
			t.Errorf("two tags: verdict %d, %v", verdict, err)
		}
	}
	// Short frames are filled up on the wire.
	padded := append(frame(client4, server4, query(www)), make([]byte, 60)...)
	verdict, got, err := x.run(padded)
	if _, want, _ := x.run(frame(client4, server4, query(www))); err != nil || verdict != verdictSend || !bytes.Equal(got, want) {
		t.Errorf("verdict %d, %v: %x, want %x", verdict, err, got, want)
	}
}

// Random damage never makes an answer that is not the one to the query.
func TestDamage(t *testing.T) {
	x := trial(t, Options{}, hosts())
	r := rand.New(rand.NewPCG(3, 4))
	base := [][]byte{query(www), query(www, opt(1232)...), query(www, subnet(0, 1, 24, 0, 10, 1, 1)...), query(www, subnet(0, 2, 32, 0, 0x20, 1, 0xd, 0xb8)...)}
	sent := 0
	for range 20_000 {
		msg := slices.Clone(base[r.IntN(len(base))])
		for range r.IntN(4) {
			switch r.IntN(4) {
			case 0:
				msg = msg[:r.IntN(len(msg)+1)]
			case 1:
				msg = append(msg, byte(r.Uint32()))
			default:
				if len(msg) > 0 {
					msg[r.IntN(len(msg))] = byte(r.Uint32())
				}
			}
		}
		answer, err := x.Ask(client4, server4, msg)
		if err != nil {
			t.Fatalf("%x: %v", msg, err)
		}
		if answer == nil {
			continue
		}
		sent++
		question := 12 + len(www) + 4
		if !bytes.Equal(answer[:2], msg[:2]) || !bytes.EqualFold(answer[12:question], []byte(query(www)[12:])) || !bytes.Equal(answer[12:question], msg[12:question]) ||
			!bytes.HasPrefix(answer[question:], []byte("an address")) {
			t.Fatalf("query %x\nanswer %x", msg, answer)
		}
	}
	if sent < 1000 {
		t.Errorf("only %d answers", sent)
	}
	// And of whole packets, in one bit, which any checksum shows.
	for range 20_000 {
		p := frame(client4, server4, base[r.IntN(len(base))])
		if r.IntN(2) == 0 {
			p = frame(client6, server6, base[r.IntN(len(base))])
		}
		want := slices.Clone(p)
		p[r.IntN(len(p))] ^= 1 << r.IntN(8)
		verdict, out, err := x.run(p)
		if err != nil {
			t.Fatal(err)
		}
		if verdict == verdictPass && !bytes.Equal(out, p) || verdict != verdictPass && verdict != verdictSend {
			t.Fatalf("verdict %d for %x: %x", verdict, p, out)
		}
		// The sender's hardware address, and what no checksum covers of IPv6, may be
		// damaged without notice.
		if verdict == verdictSend && !bytes.Equal(p[22:], want[22:]) {
			t.Fatalf("answered %x", p)
		}
	}
}

func TestRateLimit(t *testing.T) {
	x := trial(t, Options{Responses: 5, Exempt: []netip.Prefix{
		netip.MustParsePrefix("203.0.113.0/25"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:e::/48"),
	}}, only(www, Entry{At: Answers{
		Types: []Typed{{1, &Answer{ID: 1, Base: len(www)}}}, Other: &Answer{ID: 2, Base: len(www)},
	}}))
	sent := func(from string, qtype byte, times int) (n int) {
		t.Helper()
		f := netip.AddrPortFrom(netip.MustParseAddr(from), 4000)
		to := server4
		if f.Addr().Is6() {
			to = server6
		}
		msg := query(www)
		msg[12+len(www)+1] = qtype
		for range times {
			answer, err := x.Ask(f, to, msg)
			if err != nil {
				t.Fatal(err)
			}
			if answer != nil {
				n++
			}
		}
		return n
	}
	start := time.Now()
	for _, test := range []struct {
		from  string
		qtype byte
		want  int
	}{
		{"198.51.100.1", 1, 5},
		{"198.51.100.200", 1, 0}, // the same network
		{"198.51.100.1", 2, 5},   // another answer
		{"198.51.101.1", 1, 5},
		{"2001:db8:a:1::1", 1, 5},
		{"2001:db8:a:2::1", 1, 0}, // the same /56
		{"2001:db8:a:100::1", 1, 5},
		{"203.0.113.5", 1, 50},
		{"203.0.113.205", 1, 5},
		{"2001:db8:e:1::1", 1, 50},
	} {
		if got := sent(test.from, test.qtype, 50); got != test.want {
			if passed := time.Since(start); passed > 200*time.Millisecond {
				t.Skipf("slow machine: %v", passed) // more are within the rate by now
			}
			t.Errorf("%s type %d: %d answers, want %d", test.from, test.qtype, got, test.want)
		}
	}
}

// An image that nobody vouches for any more is not trusted, and neither is none.
func TestStale(t *testing.T) {
	x := trial(t, Options{}, hosts())
	ask := func() []byte {
		t.Helper()
		answer, err := x.Ask(client4, server4, query(www))
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if ask() == nil {
		t.Fatal("no answer")
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	if err := x.trust(uint64(now.Nano())); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // the program's clock is a coarse one
	if ask() != nil {
		t.Error("a stale image is trusted")
	}
	if err := x.trust(uint64(now.Nano() + int64(time.Minute))); err != nil {
		t.Fatal(err)
	}
	if ask() == nil {
		t.Error("no answer after a new beat")
	}
	if err := x.Update(nil); err != nil {
		t.Fatal(err)
	}
	if ask() != nil {
		t.Error("an answer without image")
	}
	if got := x.Outcomes()["stale"]; got != 2 {
		t.Errorf("%d stale", got)
	}
}

func TestEndpoints(t *testing.T) {
	addrs := func(texts ...string) (all []netip.Addr) {
		for _, text := range texts {
			all = append(all, netip.MustParseAddr(text))
		}
		return all
	}
	ports := func(texts ...string) (all []netip.AddrPort) {
		for _, text := range texts {
			all = append(all, netip.MustParseAddrPort(text))
		}
		return all
	}
	local := addrs("192.0.2.1", "192.0.2.2", "2001:db8::1")
	for _, test := range []struct {
		listen []netip.AddrPort
		want   int
	}{
		{ports("192.0.2.1:53"), 1},
		{ports("192.0.2.3:53"), 0}, // it has moved away
		{ports("0.0.0.0:53"), 2},
		{ports("[::]:53"), 1},
		{ports("0.0.0.0:53", "[::]:53", "192.0.2.1:53", "192.0.2.1:54"), 4},
	} {
		if got := endpointsOf(test.listen, local); len(got) != test.want {
			t.Errorf("%v: %v", test.listen, got)
		}
	}
}
