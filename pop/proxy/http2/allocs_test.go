//go:build !race

package http2

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"anyedge/pop/proxy/exchange"
)

// constant is a body that allocates nothing.
type constant struct{ left int }

func (c *constant) Read(p []byte) (int, error) {
	n := min(c.left, len(p))
	if c.left -= n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *constant) Close() error { return nil }

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
