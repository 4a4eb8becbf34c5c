package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/pop/proxy/buffers"
)

// closes takes a whole request and hangs up.
func closes(_ net.Conn, r *bufio.Reader) {
	if req, err := http.ReadRequest(r); err == nil {
		io.Copy(io.Discard, req.Body)
	}
}

// begins hangs up in the middle of its answer's head.
func begins(c net.Conn, r *bufio.Reader) {
	closes(c, r)
	io.WriteString(c, "HTTP/1.1 200 OK\r\n")
}

// silent never answers.
func silent(c net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) }

// A request is sent to another backend only when that does no harm.
func TestRetry(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	}
	long := strings.Repeat("x", buffers.PieceSize+1)
	tests := []struct {
		name     string
		bad      func(net.Conn, *bufio.Reader)
		method   string
		body     string
		attempts int
		budget   configs.Percent
		retried  bool
	}{
		{"idempotent, no answer", closes, "GET", "", 2, 100, true},
		{"a short body is sent again", closes, "PUT", "body", 2, 100, true},
		{"a long one is not kept", closes, "PUT", long, 2, 100, false},
		{"not idempotent", closes, "POST", "body", 2, 100, false},
		{"the answer has begun", begins, "GET", "", 2, 100, false},
		{"too slow", silent, "GET", "", 2, 100, true},
		{"too slow, not idempotent", silent, "POST", "", 2, 100, false},
		{"no attempts", closes, "GET", "", 0, 100, false},
		{"no budget", closes, "GET", "", 2, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEdge(t, serveRaw(t, tt.bad), serveHTTP(t, echo))
			e.mustApply(func(s *Snapshot) {
				s.Routes[0].Retries = configs.Retries{Attempts: &tt.attempts, Budget: &tt.budget}
				s.Pools[0].Config.FirstByteTimeout = configs.Duration(50 * time.Millisecond)
			})
			good, failed := 0, 0
			for range 4 { // round robin: two of them begin at the bad one
				req, err := http.NewRequest(tt.method, "http://shop.example/", strings.NewReader(tt.body))
				if err != nil {
					t.Fatal(err)
				}
				res, err := e.client(clear1, "h1").Do(req)
				if err != nil {
					t.Fatal(err)
				}
				switch body := readAll(t, res.Body); {
				case res.StatusCode == 200 && body == tt.body:
					good++
				case res.StatusCode == 502 || res.StatusCode == 504:
					failed++
				default:
					t.Fatalf("status %d, %d bytes of body", res.StatusCode, len(body))
				}
			}
			if want := 2; tt.retried && good != 4 || !tt.retried && failed != want {
				t.Errorf("%d good and %d failed answers", good, failed)
			}
			retries := metric(t, e, "anyedge_proxy_upstream_retries_total", "pool", "pool")
			if retried := retries > 0; retried != tt.retried {
				t.Errorf("%v retries counted", retries)
			}
		})
	}
}

func TestBudget(t *testing.T) {
	var b budget
	for i := range budgetReserve {
		if !b.withdraw() {
			t.Fatalf("token %d of the reserve is not there", i)
		}
	}
	if b.withdraw() {
		t.Fatal("more was withdrawn than the reserve")
	}
	retries := 0
	for range 1000 {
		b.deposit(200)
		if b.withdraw() {
			retries++
		}
	}
	if retries != 200 {
		t.Errorf("%d retries for 1000 requests at 20 %%", retries)
	}
	for range 1000 {
		b.deposit(1000)
	}
	for range budgetReserve {
		b.withdraw()
	}
	if b.withdraw() {
		t.Error("more than the reserve was saved up")
	}
}

// blockedBody gives its text, and then waits to be closed.
type blockedBody struct {
	text    *strings.Reader
	reading chan struct{}
	closed  chan struct{}
}

func (b *blockedBody) Read(p []byte) (int, error) {
	if b.text.Len() > 0 {
		return b.text.Read(p)
	}
	close(b.reading)
	<-b.closed
	return 0, net.ErrClosed
}

func (b *blockedBody) Close() error {
	close(b.closed)
	return nil
}

func TestUploadRewinds(t *testing.T) {
	before := buffers.Lent()
	u := newUpload(io.NopCloser(strings.NewReader("a short body")), true)
	for range 3 {
		if got := readAll(t, u); got != "a short body" {
			t.Errorf("read %q", got)
		}
		u.Close()
		if _, err := u.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
		if !u.rewind() || u.atHand() != int64(len("a short body")) {
			t.Fatal("not rewound")
		}
	}
	if u.received() != int64(len("a short body")) {
		t.Errorf("%d bytes received: what is read again does not count", u.received())
	}
	u.free()
	if lent := buffers.Lent(); lent != before {
		t.Errorf("%d bytes are lent still", lent-before)
	}
}

// A Close that has to break a Read off ends the body for good.
func TestUploadBrokenOff(t *testing.T) {
	b := &blockedBody{strings.NewReader("begin"), make(chan struct{}), make(chan struct{})}
	u := newUpload(b, true)
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, u)
		read <- err
	}()
	<-b.reading
	u.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the Read under way ended with %v", err)
	}
	if u.rewind() {
		t.Error("rewound, but the client's body is closed")
	}
	u.free()
}

// A slow backend's request goes to a second one, the first answer wins, and the
// slow one is given up.
func TestHedge(t *testing.T) {
	var given atomic.Int32
	slow := serveRaw(t, func(c net.Conn, r *bufio.Reader) {
		io.Copy(io.Discard, r) // ends when the worker closes the connection
		given.Add(1)
	})
	e := newEdge(t, slow, serveHTTP(t, hello))
	e.mustApply(func(s *Snapshot) {
		s.Routes[0].Hedge = &configs.Hedge{After: configs.Duration(10 * time.Millisecond)}
		s.Routes[0].Retries.Attempts = new(int)
	})
	for range 6 {
		res, err := e.client(clear1, "h1").Get("http://shop.example/")
		if err != nil {
			t.Fatal(err)
		}
		if readAll(t, res.Body); res.StatusCode != 200 {
			t.Fatalf("status %d", res.StatusCode)
		}
	}
	hedges := metric(t, e, "anyedge_proxy_upstream_hedges_total", "pool", "pool")
	if hedges == 0 {
		t.Error("no request went to a second backend")
	}
	eventually(t, "the slow backend is given up", func() bool { return float64(given.Load()) == hedges })
	eventually(t, "no request is under way", func() bool {
		for _, b := range e.worker.Vitals().Pools[0].Backends {
			if b.InFlight != 0 {
				return false
			}
		}
		return true
	})

	e.mustApply(func(s *Snapshot) { s.Pools[0].Config.FirstByteTimeout = configs.Duration(50 * time.Millisecond) })
	failed := 0
	for range 2 {
		res, err := e.client(clear1, "h1").Post("http://shop.example/", "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		if readAll(t, res.Body); res.StatusCode == 504 {
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("%d of two POSTs failed, want the one that began at the slow backend: it must not be hedged", failed)
	}
}

func TestServerTiming(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	c := e.dial(clear1)
	if res, _ := c.get("/"); res.Header.Get("Server-Timing") != "" {
		t.Errorf("Server-Timing %q, though nobody asked for it", res.Header.Get("Server-Timing"))
	}
	e.mustApply(func(s *Snapshot) { s.Routes[0].ServerTiming = true })
	if res, _ := c.get("/"); !strings.HasPrefix(res.Header.Get("Server-Timing"), "origin;dur=") {
		t.Errorf("Server-Timing %q", res.Header.Get("Server-Timing"))
	}
}

// While the memory is spent, requests wait, and then get 503.
func TestMemoryCeiling(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	const ceiling = 1 << 20
	e.mustApply(func(s *Snapshot) { s.BufferMemory = ceiling })
	c := e.dial(clear1)
	c.get("/")
	taken := buffers.Take(ceiling)
	e.worker.gate.look()
	began := time.Now()
	res, body := c.get("/")
	if res.StatusCode != 503 || !strings.Contains(body, "memory") || time.Since(began) < gateWait {
		t.Errorf("status %d, %q after %s", res.StatusCode, body, time.Since(began))
	}
	eventually(t, "the outcome", func() bool { return strings.Contains(e.log.String(), "outcome=overloaded") })
	time.AfterFunc(50*time.Millisecond, func() { buffers.Give(taken) })
	if res, _ := c.get("/"); res.StatusCode != 200 {
		t.Errorf("status %d, want that of a request that waited until there was room", res.StatusCode)
	}
	if e.worker.gate.tight.Load() {
		t.Error("the gate is still closed")
	}
}

func TestClientConnections(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	e.mustApply(func(s *Snapshot) { s.Listeners[0].Limits.ClientConnections = 2 })
	first := e.dial(clear1)
	first.get("/")
	e.dial(clear1).get("/")
	if conn, err := net.Dial("tcp", e.address(clear1)); err == nil {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("one too many: %v, want a closed connection", err)
		}
	}
	eventually(t, "one refusal is counted", func() bool {
		return metric(t, e, "anyedge_proxy_connections_total", "result", crowded) == 1
	})
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := other.Dial("tcp", e.address(clear1))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	neighbor := &rawClient{t: t, Conn: conn, r: bufio.NewReader(conn)}
	if res, _ := neighbor.get("/"); res.StatusCode != 200 {
		t.Errorf("status %d for another client", res.StatusCode)
	}
	first.Close()
	eventually(t, "room again", func() bool { return e.worker.Vitals().Connections == 2 })
	if res, _ := e.dial(clear1).get("/"); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
}
