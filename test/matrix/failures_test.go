package matrix

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
)

var failureChecks = []check{
	{name: "cancel-before-head", run: func(c *cell) { cancelled(c, "") }},
	{name: "cancel-in-response", run: func(c *cell) { cancelled(c, "&head") }},
	{name: "cancel-in-request", run: func(c *cell) { cancelled(c, "&body") }},
	{name: "origin-dies", run: func(c *cell) {
		for _, how := range []string{"?", "?length"} {
			dies(c, plain, how)
		}
	}},
	{name: "origin-cut-off", run: func(c *cell) {
		c.back.cutting.Lock()
		defer c.back.cutting.Unlock()
		for _, how := range []string{"?cut", "?cut&length"} {
			dies(c, cut, how)
		}
	}},
}

// cancelled sends a request, leaves in the middle, and wants the origin to
// notice it.
func cancelled(c *cell, how string) {
	event := events.of(c.name)
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	var body io.Reader
	method := "GET"
	if how == "&body" {
		method = "POST"
		reader, writer := io.Pipe()
		go writer.Write([]byte("the beginning")) // ends with the pipe
		defer context.AfterFunc(ctx, func() { writer.CloseWithError(ctx.Err()) })()
		body = reader
	}
	req := c.request(method, plain, "/hang?id="+url.QueryEscape(c.name)+how, body).WithContext(ctx)
	if how != "&head" {
		done := make(chan error, 1)
		go func() {
			res, err := c.client.Do(req)
			if err == nil {
				res.Body.Close()
				err = errors.New("status " + res.Status)
			}
			done <- err
		}()
		c.await(event, "came")
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			c.Errorf("the client got %v", err)
		}
		c.await(event, "gone")
		return
	}
	res, err := c.client.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer res.Body.Close()
	c.await(event, "came")
	if _, err := io.ReadFull(res.Body, make([]byte, len("the beginning"))); err != nil {
		c.Fatal(err)
	}
	cancel()
	c.await(event, "gone")
}

// await waits for an origin's report.
func (c *cell) await(event <-chan string, what string) {
	c.Helper()
	select {
	case got := <-event:
		if got != what {
			c.Fatalf("at the origin: %s, want %s", got, what)
		}
	case <-c.ctx.Done():
		c.Fatalf("at the origin there is not in time: %s", what)
	}
}

// dies wants an error from a response whose origin breaks off in mid-body.
func dies(c *cell, k kind, how string) {
	res, err := c.client.Do(c.request("GET", k, "/die"+how, nil))
	if err != nil {
		// A reset stream of QUIC may lose what was sent before (RFC 9000, 19.4).
		if c.front.version != 3 {
			c.Errorf("%s: no response head: %v", how, err)
		}
		return
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		c.Errorf("%s: status %d", how, res.StatusCode)
		return
	}
	if n, err := io.Copy(io.Discard, res.Body); err == nil {
		c.Errorf("%s: %d bytes of %d passed for complete", how, n, 2*deathSize)
	} else if c.ctx.Err() != nil {
		c.Errorf("%s: the client was left waiting", how)
	}
}

// closeAtEnd closes a connection when ctx ends, so that nobody waits on it for
// ever, unless stop was called.
func closeAtEnd(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { conn.Close() })
}

// responses reads responses of HTTP/1.1 from a connection.
type responses struct{ r *bufio.Reader }

func newResponses(conn net.Conn) *responses { return &responses{bufio.NewReader(conn)} }

// next reads the head of the next final response. Its body must be read before
// next is called again.
func (r *responses) next(method string) (*http.Response, error) {
	for {
		res, err := http.ReadResponse(r.r, &http.Request{Method: method})
		if err != nil || res.StatusCode >= 200 {
			return res, err
		}
	}
}
