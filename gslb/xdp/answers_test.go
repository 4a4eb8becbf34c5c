package xdp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"anyedge/gslb/steer"
	"anyedge/internal/cidr"
)

func TestSizes(t *testing.T) {
	table := only(www, Entry{At: Answers{Types: []Typed{
		{1, text(string(make([]byte, bodyMax-12-len(www)-4)))}, // 512 octets with the header
		{28, text(string(make([]byte, bodyMax+1)))},
		{16, text(string(make([]byte, bodyMax)))},
	}}})
	x := trial(t, Options{}, table)
	for _, test := range []struct {
		qtype byte
		rest  []byte
		sent  bool
	}{
		{1, nil, true},
		{1, opt(512), false},
		{1, opt(100), false},
		{1, opt(523), true},
		{1, opt(522), false},
		{16, nil, false},
		{16, opt(1232), true},
		{16, opt(65535), true},
		{28, opt(1232), false},
	} {
		msg := query(www, test.rest...)
		msg[12+len(www)+1] = test.qtype
		answer, err := x.Ask(client4, server4, msg)
		if err != nil || (answer != nil) != test.sent {
			t.Errorf("type %d, %x: %d octets, %v", test.qtype, test.rest, len(answer), err)
		}
	}
	if got := x.Outcomes()["size"]; got != 4 {
		t.Errorf("%d over the size", got)
	}
}

// What the image has no room for keeps its names from the answers of those above.
func TestImageLeavesOut(t *testing.T) {
	many := Answers{}
	for i := range typesMax + 1 {
		many.Types = append(many.Types, Typed{uint16(1 + i), text("one of many")})
	}
	moving := text("moving")
	moving.Moving = make([]uint16, movingMax+1)
	long := "\x3f" + string(make([]byte, 63)) + "\x35" + string(make([]byte, 53)) + "\x07example\x00"
	secure := text("signed")
	secure.Secure = true
	x := trial(t, Options{}, &Table{Names: func(yield func(string, Entry) bool) {
		_ = yield("\x07example\x00", Entry{Below: Answers{Other: text("below")}}) &&
			yield(www, Entry{At: many}) &&
			yield("\x03ftp\x07example\x00", Entry{At: Answers{Other: moving}}) &&
			yield("\x03sec\x07example\x00", Entry{At: Answers{Other: secure}}) &&
			yield(long, Entry{At: Answers{Other: text("longest")}}) &&
			yield("\x01x"+long, Entry{At: Answers{Other: text("longer")}})
	}})
	do := opt(1232)
	do[7] = 0x80
	deep := "\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a"
	for _, test := range []struct {
		name string
		rest []byte
		want string
	}{
		{"\x01a\x07example\x00", nil, "below"},
		{deep + "\x07example\x00", nil, "below"},
		{"\x01a" + deep + "\x07example\x00", nil, ""}, // looked for no further
		{www, nil, ""},
		{"\x01a" + www, nil, ""},
		{"\x03ftp\x07example\x00", nil, ""},
		{"\x03sec\x07example\x00", nil, "signed"},
		{"\x03sec\x07example\x00", opt(1232), "signed"},
		{"\x03sec\x07example\x00", do, ""},
		{"\x01a\x07example\x00", do, "below"},
		{long, nil, "longest"},
		{"\x01x" + long, nil, ""},
	} {
		answer, err := x.Ask(client6, server6, query(test.name, test.rest...))
		if err != nil {
			t.Fatal(err)
		}
		if test.want == "" && answer != nil || !bytes.Contains(answer, []byte(test.want)) {
			t.Errorf("%q %x: %q, want %q", test.name, test.rest, answer, test.want)
		}
	}
}

// Many names, all of which are found, and none that is not there.
func TestManyNames(t *testing.T) {
	const names = 30_000
	name := func(i int) string { return fmt.Sprintf("\x07n%06d\x07example\x00", i) }
	x := trial(t, Options{}, &Table{Names: func(yield func(string, Entry) bool) {
		for i := range names {
			if !yield(name(i), Entry{At: Answers{Other: text(fmt.Sprint(i))}}) {
				return
			}
		}
	}})
	r := rand.New(rand.NewPCG(5, 6))
	for range 5000 {
		i := r.IntN(2 * names)
		answer, err := x.Ask(client4, server4, query(name(i)))
		if err != nil {
			t.Fatal(err)
		}
		if i >= names && answer != nil || i < names && !bytes.HasSuffix(answer, fmt.Append(nil, i)) {
			t.Fatalf("%d: %x", i, answer)
		}
	}
}

// While images are replaced, each answer is all of one of them.
func TestNoTornAnswers(t *testing.T) {
	tables := make([]*Table, 2)
	for i := range tables {
		body := bytes.Repeat([]byte{'a' + byte(i)}, 400)
		tables[i] = only(www, Entry{At: Answers{Other: text(string(body))}})
	}
	x := trial(t, Options{}, tables[0])
	done := make(chan error)
	go func() {
		var err error
		for i := 1; i < 40 && err == nil; i++ {
			err = x.Update(tables[i%2])
		}
		done <- err
	}()
	seen := make(map[byte]bool)
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		answer, err := x.Ask(client4, server4, query(www))
		if err != nil {
			t.Fatal(err)
		}
		body := answer[len(query(www)):]
		if len(body) != 400 || bytes.Count(body, body[:1]) != 400 {
			t.Fatalf("torn: %q", body)
		}
		seen[body[0]] = true
	}
	if len(seen) != 2 {
		t.Error("nothing was replaced")
	}
}

// Steered names get what the table says, for clients of all kinds.
func TestSteering(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	in := steer.Input{}
	for i := range 20 {
		in.Pops = append(in.Pops, steer.Pop{
			Name: fmt.Sprint("p", i), Lat: r.Float64()*180 - 90, Lon: r.Float64()*360 - 180, State: steer.Up,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)})},
		})
	}
	name := steer.Name{Name: "www.example", TTL: 20 * time.Second}
	for _, p := range in.Pops {
		name.Answers = append(name.Answers, steer.Answer{Pop: p.Name, Weight: 1})
	}
	in.Names = []steer.Name{name}
	random := func(v6 bool) netip.Addr {
		if v6 {
			a := [16]byte{0x20, 1}
			for i := 2; i < 16; i++ {
				a[i] = byte(r.Uint32()) & 0x11
			}
			return netip.AddrFrom16(a)
		}
		return netip.AddrFrom4([4]byte{byte(r.IntN(220)) + 1, byte(r.IntN(4)), byte(r.IntN(4)), byte(r.Uint32())})
	}
	seen := make(map[netip.Prefix]bool)
	for i := range 3000 {
		a := random(i%2 == 0)
		p, _ := a.Prefix(4 + r.IntN(a.BitLen()-3))
		if !seen[p] {
			seen[p] = true
			in.Clients = append(in.Clients, steer.Client{Prefix: cidr.From(p), Lat: r.Float64()*180 - 90, Lon: r.Float64()*360 - 180})
		}
	}
	table, err := steer.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	var at Answers
	for f, qtype := range []uint16{1, 28} {
		d, ttl := table.Decisions("www.example", steer.Family(f))
		at.Types = append(at.Types, Typed{qtype, &Answer{Base: len(www), Steering: d, Family: steer.Family(f), Owner: 0xc00c, TTL: ttl}})
	}
	x := trial(t, Options{}, only(www, Entry{At: at}))
	sent := 0
	for range 5000 {
		a, f := random(r.IntN(2) == 0), steer.Family(r.IntN(2))
		p, _ := a.Prefix(r.IntN(a.BitLen() + 1))
		option := []byte{0, 1, byte(p.Bits()), 0}
		if a.Is6() {
			option[1] = 2
		}
		option = append(option, p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
		msg := query(www, subnet(option...)...)
		if f == steer.IPv6 {
			msg[12+len(www)+1] = 28
		}
		answer, err := x.Ask(client4, server4, msg)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := table.Answer(steer.Query{Name: "www.example", Family: f, Client: p})
		if answer == nil {
			if want.Reason != steer.NoPlace {
				t.Fatalf("no answer for %v, decided %+v", p, want)
			}
			continue
		}
		sent++
		record := answer[12+len(www)+4:]
		addr, _ := netip.AddrFromSlice(record[12 : 12+record[11]])
		if addr != want.Addrs[0] || record[9] != 20 || int(answer[len(answer)-len(option)+3]) != want.Scope {
			t.Fatalf("%v: %x, decided %+v", p, answer, want)
		}
	}
	if sent < 2000 {
		t.Errorf("only %d answers", sent)
	}
}
