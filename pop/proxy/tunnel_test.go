package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"anyedge/configs"
)

const upgradeRequest = "GET /chat HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// webSocketOrigin accepts upgrades to /chat and echoes; other paths it refuses.
// What it got before it answered goes to early.
func webSocketOrigin(early chan<- string) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, r *bufio.Reader) {
		head := readHead(r)
		if !strings.HasPrefix(head, "GET /chat") || !strings.Contains(head, "Upgrade: websocket\r\n") || !strings.Contains(head, "Connection: Upgrade\r\n") {
			io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
			return
		}
		conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // nothing must come yet
		sent, _ := io.ReadAll(r)
		early <- string(sent)
		conn.SetReadDeadline(time.Now().Add(patience))
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello")
		io.Copy(conn, r)
		io.WriteString(conn, "bye")
	}
}

func TestWebSocket(t *testing.T) {
	early := make(chan string, 1)
	e := newEdge(t, serveRaw(t, webSocketOrigin(early)))
	for _, listener := range []string{clear1, mixed, secure} {
		t.Run(listener, func(t *testing.T) {
			c := e.dial(listener)
			if listener == secure {
				c = e.dialTLS("http/1.1")
			}
			// A client may send ahead; the origin gets it only once it has agreed.
			c.send(upgradeRequest + "ahead ")
			if sent := await(t, "upgrade at origin", early); sent != "" {
				t.Errorf("the origin got %q before it accepted", sent)
			}
			res := c.receive("GET")
			if res.StatusCode != 101 || res.Header.Get("Upgrade") != "WebSocket" || res.Header.Get("Connection") != "Upgrade" ||
				res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
				t.Fatalf("response %d %v", res.StatusCode, res.Header)
			}
			expect(t, c.r, "helloahead ")
			// A masked text frame, "Hello", from RFC 6455, 5.7.
			frame := "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
			c.send(frame)
			expect(t, c.r, frame)
			c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			expect(t, c.r, "bye")
			if rest, err := io.ReadAll(c.r); len(rest) > 0 || err != nil {
				t.Errorf("at the end: %q, %v", rest, err)
			}
		})
	}
	eventually(t, "outcomes are recorded", func() bool { return strings.Count(e.log.String(), "outcome=upgraded") == 3 })
}

func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, []byte(want)) {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func TestWebSocketRefused(t *testing.T) {
	e := newEdge(t, serveRaw(t, webSocketOrigin(nil)))
	c := e.dial(clear1)
	c.send(strings.Replace(upgradeRequest, "/chat", "/closed", 1))
	if res := c.receive("GET"); res.StatusCode != 403 || readAll(t, res.Body) != "no" {
		t.Errorf("status %d", res.StatusCode)
	}
}

// Other upgrades are not offered to the origin.
func TestOtherUpgrades(t *testing.T) {
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Upgrade", "Http2-Settings", "Connection"} {
			if v := r.Header.Get(name); v != "" {
				t.Errorf("%s: %s", name, v)
			}
		}
	}))
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
		"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	} {
		c := e.dial(clear1)
		c.send(head)
		if res := c.receive("GET"); res.StatusCode != 200 {
			t.Errorf("%q: status %d", head, res.StatusCode)
		}
	}
}

func TestWebSocketIdle(t *testing.T) {
	early := make(chan string, 1)
	e := newEdge(t, serveRaw(t, webSocketOrigin(early)))
	e.mustApply(func(s *Snapshot) { s.Listeners[0].Timeouts.Idle = configs.Duration(time.Second) })
	c := e.dial(clear1)
	c.send(upgradeRequest)
	await(t, "upgrade at origin", early)
	c.receive("GET")
	expect(t, c.r, "hello")
	began := time.Now()
	for range 6 { // movement keeps it open past the timeout
		time.Sleep(200 * time.Millisecond)
		c.send("x")
		expect(t, c.r, "x")
	}
	if _, err := c.r.ReadByte(); err == nil || time.Since(began) > patience/2 {
		t.Errorf("the idle tunnel is still open after %s: %v", time.Since(began), err)
	}
}

// An end that breaks off does not look to the other as if it had finished.
func TestTunnelBrokenOff(t *testing.T) {
	reset := func(c net.Conn) {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	ended := make(chan error, 1)
	e := newEdge(t, serveRaw(t, func(c net.Conn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
		if b, _ := r.ReadByte(); b == 'r' {
			reset(c)
			return
		}
		_, err := r.ReadByte()
		ended <- err
	}))
	t.Run("the origin", func(t *testing.T) {
		c := e.dial(clear1)
		c.send(upgradeRequest)
		c.receive("GET")
		expect(t, c.r, "hello")
		c.send("r")
		if _, err := c.r.ReadByte(); err == nil || err == io.EOF {
			t.Errorf("the client sees %v", err)
		}
	})
	t.Run("the client", func(t *testing.T) {
		c := e.dial(clear1)
		c.send(upgradeRequest)
		c.receive("GET")
		expect(t, c.r, "hello")
		c.send("x")
		reset(c.Conn)
		if err := <-ended; err == nil || err == io.EOF {
			t.Errorf("the origin sees %v", err)
		}
	})
}
