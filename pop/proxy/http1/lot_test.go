package http1

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"anyedge/pop/proxy/tcp"
)

// inLot serves a connection with a lot and brings it there after a request.
func inLot(t *testing.T, change func(*FrontConfig)) (c *testClient, end func()) {
	t.Helper()
	lot := tcp.NewLot()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		lot.Run(ctx)
	}()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	c = serveOne(t, echo, func(config *FrontConfig) {
		config.Lot = lot
		if change != nil {
			change(config)
		}
	})
	c.get()
	c.awaitSpot()
	return c, end
}

func (c *testClient) get() {
	c.t.Helper()
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	readHead(c.r)
	body := make([]byte, len("GET a /\n"))
	if _, err := io.ReadFull(c.r, body); err != nil || string(body) != "GET a /\n" {
		c.t.Fatalf("got %q, %v", body, err)
	}
}

// awaitSpot waits until the connection is in the lot, for the first time.
func (c *testClient) awaitSpot() {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		c.front.mu.Lock()
		in := false
		for conn := range c.front.conns {
			in = conn.spot != nil
		}
		c.front.mu.Unlock()
		if in {
			return
		}
	}
	c.t.Fatal("the connection does not come to the lot")
}

// A connection goes on after it was parked.
func TestParkedConnectionGoesOn(t *testing.T) {
	t.Parallel()
	c, _ := inLot(t, nil)
	c.get()
	c.get()
	if got := c.all("GET /last HTTP/1.0\r\nHost: a\r\n\r\n"); !strings.HasSuffix(got, "GET a /last\n") {
		t.Errorf("got %q", got)
	}
	<-c.ended
}

// Whatever ends the wait in the lot for good ends the connection.
func TestParkedConnectionEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*FrontConfig)
		event  func(c *testClient, end func())
	}{
		{"the client goes", nil, func(c *testClient, _ func()) { c.CloseWrite() }},
		{"the idle timeout passes", func(config *FrontConfig) { config.IdleTimeout = linger + 100*time.Millisecond }, func(*testClient, func()) {}},
		{"CloseIdle", nil, func(c *testClient, _ func()) { c.front.CloseIdle() }},
		{"the lot's run ends", nil, func(_ *testClient, end func()) { end() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, end := inLot(t, tt.change)
			tt.event(c, end)
			if got, err := io.ReadAll(c.r); len(got) > 0 || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			<-c.ended
		})
	}
}

// A head that comes slowly after the wait is met by the header timeout.
func TestParkedConnectionSlowHead(t *testing.T) {
	t.Parallel()
	c, _ := inLot(t, func(config *FrontConfig) { config.HeaderTimeout = 200 * time.Millisecond })
	if got := c.all("GET /"); !strings.HasPrefix(got, "HTTP/1.1 408 ") {
		t.Errorf("got %q", got)
	}
	<-c.ended
}

// A lot that takes nothing is as none.
func TestLotTakesNothing(t *testing.T) {
	t.Parallel()
	c := serveOne(t, echo, func(config *FrontConfig) { config.Lot = tcp.NewLot() })
	c.get()
	time.Sleep(linger + linger/4)
	c.get()
	c.TCPConn.Close()
	<-c.ended
}
