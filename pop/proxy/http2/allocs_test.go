//go:build !race

package http2

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"anyedge/pop/proxy/exchange"
)

// getter makes one request after the other on a connection.
type getter struct {
	nc    net.Conn
	frame []byte // HEADERS, all fields in the dynamic table
	id    uint32
	read  [64 << 10]byte
}

func newGetter(t testing.TB) *getter {
	fields := exchange.Fields{{Name: "Content-Type", Value: "text/plain"}, {Name: "X-Some-Name", Value: "value"}}
	body := new(constant)
	response := exchange.Response{Status: 200, Length: 1024, Body: body, Fields: fields}
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		NewFront(config(func(_ context.Context, x *exchange.Exchange) {
			body.left = 1024
			x.Client.Respond(&response)
		})).ServeConn(context.Background(), far, testInfo)
	}()
	t.Cleanup(func() {
		near.Close()
		<-served
	})
	p := connectedTo(near)
	near.Write([]byte(h2.ClientPreface))
	p.framer.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: maxWindow})
	g := &getter{nc: near, id: 3}
	for _, f := range []string{":method", ":scheme", ":path", ":authority", "user-agent", "accept"} {
		value := map[string]string{":method": "GET", ":scheme": "https", ":path": "/some/path", ":authority": "a.example"}[f]
		p.hpack.WriteField(hpack.HeaderField{Name: f, Value: value})
	}
	first := append([]byte(nil), p.block.Bytes()...)
	p.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: true, EndStream: true})
	g.await(1)
	again := p.headers(":method", "GET", ":scheme", "https", ":path", "/some/path", ":authority", "a.example", "user-agent", "", "accept", "")
	g.frame = append([]byte{0, 0, byte(len(again)), byte(h2.FrameHeaders), 5, 0, 0, 0, 0}, again...)
	g.frame = append(g.frame, 0, 0, 4, byte(h2.FrameWindowUpdate), 0, 0, 0, 0, 0, 0, 0, 4, 0)
	return g
}

// get makes a request and reads until its response has ended.
func (g *getter) get() {
	binary.BigEndian.PutUint32(g.frame[5:], g.id)
	g.nc.Write(g.frame)
	g.await(g.id)
	g.id += 2
}

// await reads until a stream's DATA has ended.
func (g *getter) await(id uint32) {
	for have := 0; ; {
		for have >= frameHeader {
			n := int(g.read[0])<<16 | int(g.read[1])<<8 | int(g.read[2])
			if have < frameHeader+n {
				break
			}
			ended := g.read[3] == byte(h2.FrameData) && g.read[4]&1 == 1 && binary.BigEndian.Uint32(g.read[5:]) == id
			have = copy(g.read[:], g.read[frameHeader+n:have])
			if ended {
				return
			}
		}
		n, err := g.nc.Read(g.read[have:])
		if err != nil {
			panic(err)
		}
		have += n
	}
}

// maxAllocs is what a request without a body costs: its context, its HEADERS
// frame, and the WINDOW_UPDATE frame that the test's client sends with it.
const maxAllocs = 4

func TestAllocs(t *testing.T) {
	g := newGetter(t)
	if n := testing.AllocsPerRun(2000, g.get); n > maxAllocs {
		t.Errorf("%v allocations for a request, want %v at most", n, maxAllocs)
	}
}

func BenchmarkGet(b *testing.B) {
	g := newGetter(b)
	b.ReportAllocs()
	for b.Loop() {
		g.get()
	}
}

// maxBackAllocs is what a request to an origin costs: its HEADERS frame, and the
// response's one field that is not in a table.
const maxBackAllocs = 2

// The origin answers each request with the same bytes.
func TestBackAllocs(t *testing.T) {
	near, far := net.Pipe()
	answer := append([]byte{0, 0, 8, byte(h2.FrameHeaders), 4, 0, 0, 0, 0, 0x88, 0x0f, 13, 4}, "1024"...)
	answer = append(answer, 0, 4, 0, byte(h2.FrameData), 1, 0, 0, 0, 0)
	answer = append(answer, make([]byte, 1024)...)
	var served sync.WaitGroup
	served.Go(func() {
		in := make([]byte, 64<<10)
		io.ReadFull(far, in[:len(h2.ClientPreface)])
		served.Go(func() { h2.NewFramer(far, nil).WriteSettings() })
		for have := 0; ; {
			for have >= frameHeader {
				n := int(in[0])<<16 | int(in[1])<<8 | int(in[2])
				if have < frameHeader+n {
					break
				}
				if in[3] == byte(h2.FrameHeaders) {
					copy(answer[5:9], in[5:9])
					copy(answer[17+5:], in[5:9])
					far.Write(answer)
				}
				have = copy(in, in[frameHeader+n:have])
			}
			n, err := far.Read(in[have:])
			if err != nil {
				return
			}
			have += n
		}
	})
	back := NewBack(BackConfig{Log: slog.New(slog.DiscardHandler), Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
		return near, nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	served.Go(func() { back.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		far.Close()
		served.Wait()
	})
	r, piece := newGet(), make([]byte, 4<<10)
	r.Fields = exchange.Fields{{Name: "Accept", Value: "*/*"}, {Name: "X-Some-Name", Value: "value"}}
	r.HeadWait, r.BodyWait = patience, patience
	fetch(t, back, testOrigin, r, piece)
	if n := testing.AllocsPerRun(2000, func() { fetch(t, back, testOrigin, r, piece) }); n > maxBackAllocs {
		t.Errorf("%v allocations for a request, want %v at most", n, maxBackAllocs)
	}
}
