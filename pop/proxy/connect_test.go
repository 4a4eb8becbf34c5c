package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"anyedge/configs"
	"anyedge/pop/proxy/exchange"
)

// shout serves a connection that no HTTP is spoken on: it sends back what it
// gets in capitals, and ends when the client has.
func shout(c net.Conn, r *bufio.Reader) {
	text, _ := io.ReadAll(r)
	io.WriteString(c, strings.ToUpper(string(text)))
}

func TestConnect(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	e.listenQUIC()
	tcp := testPool("tcp", serveRaw(t, shout))
	e.mustApply(func(s *Snapshot) {
		s.Pools = append(s.Pools, tcp)
		s.Routes = append(s.Routes, configs.Route{
			Match: configs.Match{Host: "db.example"}, Pool: "tcp", Connect: true, Timeout: configs.Duration(patience),
		})
	})
	t.Run("h1", func(t *testing.T) {
		c := e.dial(clear1)
		c.send("CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\nsent ahead, ") // RFC 9110, 9.3.6, allows it
		if res := c.receive("CONNECT"); res.StatusCode != 200 || len(res.TransferEncoding) > 0 || res.Header.Get("Content-Length") != "" {
			t.Fatalf("%s, %v", res.Status, res.Header)
		}
		c.send("and then")
		c.Conn.(*net.TCPConn).CloseWrite()
		expect(t, c.r, "SENT AHEAD, AND THEN")
		if _, err := c.r.ReadByte(); err != io.EOF {
			t.Errorf("after the end: %v", err)
		}
	})
	for _, v := range []struct{ name, listener, protocol string }{{"h2c", mixed, "h2"}, {"h2", secure, "h2"}, {"h3", secure, "h3"}} {
		t.Run(v.name, func(t *testing.T) {
			client := e.client(v.listener, v.protocol)
			if v.protocol == "h3" {
				client = e.quicClient()
			}
			body, send := io.Pipe()
			req, err := http.NewRequest("CONNECT", "https://db.example:5432", body)
			if err != nil {
				t.Fatal(err)
			}
			if v.listener == mixed {
				req.URL.Scheme = "http"
			}
			go func() {
				io.WriteString(send, "all of it")
				send.Close()
			}()
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if body := readAll(t, res.Body); res.StatusCode != 200 || body != "ALL OF IT" {
				t.Errorf("%s, %q", res.Status, body)
			}
		})
	}
	t.Run("refused elsewhere", func(t *testing.T) {
		c := e.dial(clear1)
		c.send("CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\nGET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
		if res := c.receive("CONNECT"); res.StatusCode != 501 || !res.Close {
			t.Errorf("%s, last %v", res.Status, res.Close)
		}
	})
	t.Run("other methods do not match", func(t *testing.T) {
		c := e.dial(clear1)
		c.send("GET / HTTP/1.1\r\nHost: db.example\r\n\r\n")
		if res := c.receive("GET"); res.StatusCode != 200 {
			t.Errorf("%s, want that of the route for all hosts", res.Status)
		}
	})
	eventually(t, "tunnels are logged", func() bool {
		return strings.Contains(e.log.String(), `route="CONNECT db.example"`) && strings.Contains(e.log.String(), "outcome=upgraded")
	})
}

// discard is a client that takes any response.
type discard struct{ status int }

func (*discard) Inform(int, exchange.Fields) error { return nil }

func (d *discard) Respond(r *exchange.Response) error {
	d.status = r.Status
	if r.Body != nil {
		io.Copy(io.Discard, r.Body)
	}
	return nil
}

func (*discard) Upgrade(exchange.Fields) (exchange.Tunnel, error) { return nil, net.ErrClosed }

// A request in early data is marked, one that came marked stays so, and an
// origin's 425 reaches the client (RFC 8470, 5).
func TestEarlyData(t *testing.T) {
	seen := make(chan []string, 1)
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Values("Early-Data")
		w.WriteHeader(http.StatusTooEarly)
	}))
	e.worker.mu.Lock()
	var c *codec
	for _, l := range e.worker.listeners {
		if l.name == secure {
			c = l.face.Load().codec
		}
	}
	e.worker.mu.Unlock()
	for _, tt := range []struct {
		name   string
		early  bool
		fields exchange.Fields
		want   string
	}{
		{"early", true, nil, "1"},
		{"early at a hop before us", false, exchange.Fields{{Name: "Early-Data", Value: "1"}}, "1"},
		{"both", true, exchange.Fields{{Name: "early-data", Value: "1"}}, "1"},
		{"neither", false, nil, ""},
	} {
		client := new(discard)
		c.serve(context.Background(), &exchange.Exchange{
			Conn: &exchange.Conn{TLS: &exchange.TLS{}}, Client: client,
			Request: exchange.Request{Protocol: exchange.HTTP3, Method: "GET", Authority: "shop.example", Path: "/", Fields: tt.fields, Early: tt.early},
		})
		if got := strings.Join(<-seen, ", "); got != tt.want || client.status != http.StatusTooEarly {
			t.Errorf("%s: Early-Data %q, want %q; status %d", tt.name, got, tt.want, client.status)
		}
	}
}
