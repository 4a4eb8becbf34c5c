package http2

import (
	"context"
	"io"
	"testing"
	"testing/synctest"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

var extended = []string{
	":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/chat", ":authority", "a.example",
	"sec-websocket-version", "13", "sec-websocket-key", "the client has no say in it",
}

func TestWebSocket(t *testing.T) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) {
		var request exchange.Request
		p := greeted(t, NewFront(config(func(ctx context.Context, x *exchange.Exchange) {
			request = x.Request
			testServer(ctx, x)
		})))
		p.raw(1, false, extended...)
		head := p.expect(h2.FrameHeaders, 1)
		if head.fields[":status"] != "200" || head.fields["sec-websocket-accept"] != "" || head.fields["sec-websocket-protocol"] != "echo" {
			t.Errorf("head %v", head.fields)
		}
		if request.Method != "GET" || request.Upgrade != "websocket" || request.Path != "/chat" || request.Body != nil ||
			len(request.Fields.Get("Sec-WebSocket-Key")) != 24 || !request.Fields.Has("Sec-WebSocket-Version") {
			t.Errorf("request %+v", request)
		}
		for range 100 {
			p.framer.WriteData(1, false, []byte("frame"))
			if f := p.expect(h2.FrameData, 1); string(f.payload) != "frame" {
				t.Fatalf("echo %q", f.payload)
			}
		}
		p.framer.WriteData(1, true, nil)
		if f := p.expect(h2.FrameData, 1); len(f.payload) != 0 || !f.Flags.Has(h2.FlagDataEndStream) {
			t.Errorf("end %v", f)
		}
		p.request(3, "/", true)
		p.response(3)
		for _, f := range p.past {
			if f.Type == h2.FrameRSTStream {
				t.Errorf("reset with %v", f.code)
			}
		}
	})
}

func TestWebSocketEnds(t *testing.T) {
	for name, test := range map[string]struct {
		handler exchange.Handler
		code    h2.ErrCode
	}{
		"refused":  {func(_ context.Context, x *exchange.Exchange) { respond(x, 403, 0, nil) }, h2.ErrCodeNo},
		"bad key":  {func(_ context.Context, x *exchange.Exchange) { x.Client.Upgrade(nil) }, h2.ErrCodeInternal},
		"no reply": {func(context.Context, *exchange.Exchange) {}, h2.ErrCodeInternal},
		"unasked": {func(_ context.Context, x *exchange.Exchange) {
			x.Client.(*turn).key = "" // as on a request that asks for none
			if _, err := x.Client.Upgrade(nil); err == nil {
				panic("upgraded without being asked")
			}
		}, h2.ErrCodeInternal},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := greeted(t, NewFront(config(test.handler)))
				p.raw(1, false, extended...)
				if f := p.expect(h2.FrameRSTStream, 1); f.code != test.code {
					t.Errorf("reset with %v, want %v", f.code, test.code)
				}
			})
		})
	}
}

// Close ends Read and Write under way, from any goroutine.
func TestTunnelClose(t *testing.T) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) {
		reads, writes := make(chan error, 1), make(chan error, 1)
		p := greeted(t, NewFront(config(func(_ context.Context, x *exchange.Exchange) {
			tunnel := accept(x)
			go func() {
				_, err := io.Copy(io.Discard, tunnel)
				reads <- err
			}()
			go func() {
				_, err := io.Copy(tunnel, zeros{})
				writes <- err
			}()
			synctest.Wait()
			tunnel.Close()
			tunnel.Close()
			if <-reads == nil || <-writes == nil {
				t.Error("no error")
			}
			if _, err := tunnel.Write([]byte("x")); err == nil {
				t.Error("written after Close")
			}
		})))
		p.raw(1, false, extended...)
		if f := p.expect(h2.FrameRSTStream, 1); f.code != h2.ErrCodeCancel {
			t.Errorf("reset with %v", f.code)
		}
	})
}

// CONNECT without a protocol asks for a tunnel to the authority (RFC 9113, 8.5).
func TestConnect(t *testing.T) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) {
		var request exchange.Request
		p := greeted(t, NewFront(config(func(_ context.Context, x *exchange.Exchange) {
			if x.Request.Authority != "a.example:443" {
				respond(x, 501, 0, nil)
				return
			}
			request = x.Request
			tunnel, err := x.Client.Upgrade(exchange.Fields{{Name: "X", Value: "y"}})
			if err != nil {
				t.Error(err)
				return
			}
			defer tunnel.Close()
			io.Copy(tunnel, tunnel)
			tunnel.CloseWrite()
		})))
		p.raw(1, false, ":method", "CONNECT", ":authority", "a.example:443")
		if f := p.expect(h2.FrameHeaders, 1); f.fields[":status"] != "200" || f.fields["x"] != "y" || f.Flags.Has(h2.FlagHeadersEndStream) {
			t.Errorf("head %v", f.fields)
		}
		if request.Method != "CONNECT" || request.Authority != "a.example:443" || request.Path != "" || request.Body != nil || request.Upgrade != "" {
			t.Errorf("request %+v", request)
		}
		p.framer.WriteData(1, false, []byte("ping"))
		if f := p.expect(h2.FrameData, 1); string(f.payload) != "ping" {
			t.Errorf("echo %q", f.payload)
		}
		p.framer.WriteData(1, true, nil)
		if f := p.expect(h2.FrameData, 1); !f.Flags.Has(h2.FlagDataEndStream) {
			t.Errorf("end %v", f)
		}
		p.raw(3, false, ":method", "CONNECT", ":authority", "closed.example:443")
		if f := p.expect(h2.FrameHeaders, 3); f.fields[":status"] != "501" {
			t.Errorf("head %v", f.fields)
		}
		p.request(5, "/", true)
		p.response(5)
	})
}
