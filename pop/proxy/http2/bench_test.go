package http2

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"testing"

	"anyedge/pop/proxy/exchange"
)

// Requests to an origin on loopback, 32 at a time: to our own front, which costs
// less than other servers do, and to x/net's server.
func BenchmarkBack(b *testing.B) {
	for _, bench := range []struct {
		name string
		size int
		xnet bool
	}{{"1k", 1 << 10, false}, {"64k", 64 << 10, false}, {"x/net 1k", 1 << 10, true}} {
		b.Run(bench.name, func(b *testing.B) {
			var to netip.AddrPort
			if bench.xnet {
				piece := make([]byte, bench.size)
				to = xNet(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(piece) }))
			} else {
				to = netip.MustParseAddrPort(serve(b, NewFront(config(func(_ context.Context, x *exchange.Exchange) {
					x.Client.Respond(&exchange.Response{Status: 200, Length: int64(bench.size), Body: &constant{left: bench.size}})
				})), nil))
			}
			back := runBack(b, false)
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				r, piece := newGet(), make([]byte, 32<<10)
				for pb.Next() {
					fetch(b, back, to, r, piece)
				}
			})
		})
	}
}

// fetch makes a request and reads its response to the end.
func fetch(t testing.TB, back *Back, to netip.AddrPort, r *exchange.Request, piece []byte) {
	res, err := back.RoundTrip(context.Background(), to, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = res.Body.Read(piece)
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	res.Body.Close()
}

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
