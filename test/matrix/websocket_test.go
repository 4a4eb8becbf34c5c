package matrix

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"
)

var socketChecks = []check{
	{name: "websocket", impossible: noWebSocket, run: webSocket},
	{name: "websocket-refused", impossible: noWebSocket, run: webSocketRefused},
}

func noWebSocket(f *front, _ *back) string {
	if f.version == 3 {
		return "WebSocket over HTTP/3 (RFC 9220) is not offered"
	}
	return ""
}

const (
	maxMessage  = 4 << 20
	statusBye   = websocket.StatusCode(4001) // of an origin that is asked to close
	closeBy     = "close, please"
	subprotocol = "echo.matrix"
)

// serveWebSocket echoes messages, over HTTP/1.1 and over HTTP/2 by extended
// CONNECT (RFC 8441).
func serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("refuse") {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	if r.ProtoMajor == 2 {
		s := &streamSocket{ResponseWriter: w, body: r.Body}
		r = r.Clone(r.Context())
		if r.Method != http.MethodConnect || r.Header.Get(":protocol") != "websocket" {
			http.Error(w, "not an extended CONNECT", http.StatusBadRequest)
			return
		}
		r.Method = http.MethodGet
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Sec-WebSocket-Key", base64.StdEncoding.EncodeToString(make([]byte, 16)))
		w = s
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxMessage)
	for {
		kind, message, err := conn.Read(context.Background())
		if id := r.URL.Query().Get("id"); err != nil && id != "" {
			events.of(id) <- fmt.Sprint("closed with ", int(websocket.CloseStatus(err)))
		}
		if err != nil {
			return
		}
		if string(message) == closeBy {
			conn.Close(statusBye, "bye")
			return
		}
		if err := conn.Write(context.Background(), kind, message); err != nil {
			return
		}
	}
}

// streamSocket lets a WebSocket server run on a stream of HTTP/2.
type streamSocket struct {
	http.ResponseWriter
	body io.ReadCloser
	mu   sync.Mutex
}

// WriteHeader implements [http.ResponseWriter].
func (s *streamSocket) WriteHeader(code int) {
	if code == http.StatusSwitchingProtocols {
		for _, name := range []string{"Connection", "Upgrade", "Sec-WebSocket-Accept"} {
			s.Header().Del(name)
		}
		code = http.StatusOK
	}
	s.ResponseWriter.WriteHeader(code)
	http.NewResponseController(s.ResponseWriter).Flush()
}

// Hijack implements [http.Hijacker].
func (s *streamSocket) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return &streamConn{s}, bufio.NewReadWriter(bufio.NewReader(s.body), bufio.NewWriter(&streamConn{s})), nil
}

// streamConn is a stream as a connection.
type streamConn struct{ s *streamSocket }

func (c *streamConn) Read(p []byte) (int, error) { return c.s.body.Read(p) }

func (c *streamConn) Write(p []byte) (int, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	n, err := c.s.ResponseWriter.Write(p)
	if err == nil {
		err = http.NewResponseController(c.s.ResponseWriter).Flush()
	}
	return n, err
}

func (c *streamConn) Close() error                     { return c.s.body.Close() }
func (c *streamConn) LocalAddr() net.Addr              { return nil }
func (c *streamConn) RemoteAddr() net.Addr             { return nil }
func (c *streamConn) SetDeadline(time.Time) error      { return nil }
func (c *streamConn) SetReadDeadline(time.Time) error  { return nil }
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }

// open makes a WebSocket to the origin. The response is not nil if there was
// one.
func (c *cell) open(path string) (*websocket.Conn, *http.Response, error) {
	c.Helper()
	options := &websocket.DialOptions{Subprotocols: []string{subprotocol}, CompressionMode: websocket.CompressionDisabled}
	if c.front.version == 2 {
		conn, err := c.front.dial(c.ctx, c.edge)
		if err != nil {
			return nil, nil, err
		}
		c.Cleanup(func() { conn.Close() })
		transport, err := newExtended(conn)
		if err != nil {
			return nil, nil, err
		}
		options.HTTPClient = &http.Client{Transport: transport}
	} else {
		options.HTTPClient = c.client.Client
	}
	return websocket.Dial(c.ctx, c.front.scheme()+"://"+c.back.host(plain)+path, options)
}

func webSocket(c *cell) {
	conn, _, err := c.open("/ws?id=" + url.QueryEscape(c.name))
	if err != nil {
		c.Fatal(err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxMessage)
	if conn.Subprotocol() != subprotocol {
		c.Errorf("subprotocol %q", conn.Subprotocol())
	}
	sizes := []int64{0, 1, 125, 126, 65535, 65536, 1 << 20, maxMessage / 2, 10}
	sent := make(chan error, 1)
	go func() { // while others are read
		for i, size := range sizes {
			message, _ := io.ReadAll(content(uint64(i), size))
			if err := conn.Write(c.ctx, websocket.MessageBinary, message); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i, size := range sizes {
		kind, message, err := conn.Read(c.ctx)
		if err != nil || kind != websocket.MessageBinary {
			c.Fatalf("message of %d bytes: %v %v", size, kind, err)
		}
		c.checksum(fmt.Sprintf("message %d", i), bytes.NewReader(message), uint64(i), size)
	}
	if err := <-sent; err != nil {
		c.Fatal(err)
	}
	if err := conn.Close(websocket.StatusNormalClosure, "done"); err != nil {
		c.Errorf("close: %v", err)
	}
	c.await(events.of(c.name), "closed with 1000")

	// The origin may close too.
	conn, _, err = c.open("/ws")
	if err != nil {
		c.Fatal(err)
	}
	defer conn.CloseNow()
	if err := conn.Write(c.ctx, websocket.MessageText, []byte(closeBy)); err != nil {
		c.Fatal(err)
	}
	if _, _, err := conn.Read(c.ctx); websocket.CloseStatus(err) != statusBye {
		c.Errorf("the origin's close arrived as %v", err)
	}
}

// webSocketRefused wants the origin's refusal, and not a tunnel.
func webSocketRefused(c *cell) {
	conn, res, err := c.open("/ws?refuse")
	if err == nil {
		conn.CloseNow()
		c.Fatal("a tunnel that the origin refused")
	}
	if res == nil || res.StatusCode != http.StatusForbidden {
		c.Errorf("%v, response %v", err, res)
	}
	getBytes(c, 100, true)
}
