package http3

import (
	"context"
	"io"
	"strings"
	"testing"

	"anyedge/pop/proxy/exchange"
)

func webSocket() []byte {
	return headers(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "localhost", ":path", "/chat",
		"sec-websocket-version", "13", "sec-websocket-key", "theirs")
}

// Bytes go both ways in a tunnel, and each end can stop first.
func TestTunnels(t *testing.T) {
	for _, tt := range []struct {
		name    string
		request []byte
	}{
		{"WebSocket", webSocket()},
		{"CONNECT", headers(":method", "CONNECT", ":authority", "db.example:5432")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := handlerServe(t, func(_ context.Context, x *exchange.Exchange) {
				r := &x.Request
				fields := exchange.Fields{{Name: "X-A", Value: "b"}}
				if r.Upgrade == "websocket" {
					key := r.Fields.Get("Sec-WebSocket-Key")
					if r.Method != "GET" || r.Path != "/chat" || r.Length != 0 || r.Body != nil || key == "theirs" || len(key) != 24 {
						t.Errorf("request %+v", r)
					}
					fields.Add("Sec-WebSocket-Accept", exchange.WebSocketAccept(key))
				} else if r.Method != "CONNECT" || r.Path != "" || r.Authority != "db.example:5432" || r.Body != nil {
					t.Errorf("request %+v", r)
				}
				tunnel, err := x.Client.Upgrade(fields)
				if err != nil {
					t.Error(err)
					return
				}
				defer tunnel.Close()
				if n, err := io.Copy(tunnel, tunnel); n != 100<<10 || err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
				tunnel.Write([]byte("bye"))
				tunnel.CloseWrite()
				if _, err := tunnel.Write([]byte("x")); err == nil {
					t.Error("written after CloseWrite")
				}
			})
			call := e.connect(t).begin(tt.request)
			head, err := call.head()
			if err != nil || head.Get(":status") != "200" || head.Has("sec-websocket-accept") || head.Get("x-a") != "b" {
				t.Fatal(head, err)
			}
			want := strings.Repeat("0123456789", 10<<10)
			go func() {
				for at := 0; at < len(want); at += 1 << 10 {
					call.Write(data(want[at : at+1<<10]))
				}
				call.Close()
			}()
			var got strings.Builder
			for {
				kind, payload, err := call.next()
				if err == io.EOF {
					break
				}
				if err != nil || kind != frameData {
					t.Fatal(kind, err)
				}
				got.Write(payload)
			}
			if got.String() != want+"bye" {
				t.Errorf("%d bytes came back", got.Len())
			}
		})
	}
}

// Upgrades that are not to be.
func TestNoTunnel(t *testing.T) {
	e := handlerServe(t, func(ctx context.Context, x *exchange.Exchange) {
		if tunnel, err := x.Client.Upgrade(exchange.Fields{{Name: "Sec-WebSocket-Accept", Value: "wrong"}}); err == nil {
			tunnel.Close()
			t.Error("upgraded")
		}
		x.Client.Respond(respond(403, "no"))
	})
	c := e.connect(t)
	for _, b := range [][]byte{webSocket(), get("GET", "/")} {
		call := c.begin(b)
		if b[2] == 0 {
			call.Close()
		}
		call.Write(data("early frame"))
		if head, body, _, err := call.answer(); err != nil || head.Get(":status") != "403" || body != "no" {
			t.Errorf("%v %q %v", head, body, err)
		}
	}
}

// Closing a tunnel ends Read, and the client sees a reset.
func TestTunnelClose(t *testing.T) {
	e := handlerServe(t, func(_ context.Context, x *exchange.Exchange) {
		tunnel, err := x.Client.Upgrade(nil)
		if err != nil {
			t.Error(err)
			return
		}
		read := make(chan error)
		go func() {
			tunnel.Read(make([]byte, 1))
			_, err := tunnel.Read(make([]byte, 1))
			read <- err
		}()
		tunnel.Write([]byte("x"))
		tunnel.Close()
		if err := <-read; err == nil {
			t.Error("Read after Close")
		}
		if _, err := tunnel.Write([]byte("x")); err == nil {
			t.Error("Write after Close")
		}
	})
	call := e.connect(t).begin(headers(":method", "CONNECT", ":authority", "a:1"))
	if _, _, _, err := call.answer(); resetCode(err) != codeRequestCancelled {
		t.Errorf("the client sees %v", err)
	}
}
