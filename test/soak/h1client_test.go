package soak

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

// h1Client is a client of HTTP/1.1 that keeps its connection while it can, and
// pipelines.
type h1Client struct {
	soak  *soak
	front *front
	rand  *rand.Rand
	draw  func() *exchange

	conn   net.Conn
	r      *bufio.Reader
	served int // exchanges on conn
}

func (c *h1Client) run(ctx context.Context) {
	defer c.drop(false)
	for ctx.Err() == nil {
		n := 1
		if c.rand.IntN(4) == 0 {
			n += c.rand.IntN(4)
		}
		var batch []*exchange
		for range n {
			x := c.draw()
			batch = append(batch, x)
			if x.client != sound || x.halfway || x.tunnel || x.expect || x.old {
				break // nothing can follow
			}
		}
		c.serve(ctx, batch)
	}
}

func (c *h1Client) drop(reset bool) {
	if c.conn != nil {
		part(c.conn, reset)
		c.conn, c.r = nil, nil
	}
}

// socketKey is any key of a WebSocket handshake.
const socketKey = "AAAAAAAAAAAAAAAAAAAAAA=="

// turn is an exchange of a batch.
type turn struct {
	*exchange
	goAhead chan bool     // whether the body is to be sent after all
	wrote   chan struct{} // closed when nothing more is sent
	err     error         // of sending; set before wrote is closed
}

// serve makes a batch of exchanges on one connection.
func (c *h1Client) serve(ctx context.Context, batch []*exchange) {
	if c.conn == nil {
		conn, err := c.front.dial(ctx, c.soak.edge)
		if err != nil {
			for _, x := range batch {
				x.judge(result{err: err}, ctx.Err() != nil)
			}
			return
		}
		c.conn, c.r, c.served = conn, bufio.NewReader(conn), 0
	}
	conn := c.conn
	conn.SetDeadline(time.Now().Add(patience))
	var turns []*turn
	for _, x := range batch {
		turns = append(turns, &turn{exchange: x, goAhead: make(chan bool, 1), wrote: make(chan struct{})})
	}
	go func() {
		failed := false
		for _, t := range turns {
			if !failed {
				t.err = c.write(conn, t)
				failed = t.err != nil
			}
			close(t.wrote)
		}
	}()
	keep := true
	for i, t := range turns {
		if !keep {
			select {
			case t.goAhead <- false:
			default:
			}
			t.judge(result{unserved: true}, true)
			continue
		}
		var out result
		out, keep = c.read(conn, t)
		if out.err != nil {
			out.err = fmt.Errorf("exchange %d of the connection, %d of a batch of %d: %w (%d tries; the worker: %s)",
				c.served, i, len(turns), out.err, t.tried(), c.soak.edge.log.about(conn.LocalAddr().String()))
		}
		c.served++
		select {
		case t.goAhead <- false:
		default:
		}
		if keep {
			<-t.wrote // the rest of an early answer's request
			keep = t.err == nil
		}
		if !keep && i < len(turns)-1 {
			c.soak.event("pipelined requests left unserved")
		}
		// Others of the batch may break the connection off.
		t.judge(out, i < len(turns)-1 && turns[len(turns)-1].client != sound)
	}
	if !keep {
		conn.Close()
	}
	for _, t := range turns {
		<-t.wrote
	}
	if !keep {
		c.drop(false)
	}
}

// write sends a request as far as the plan says.
func (c *h1Client) write(conn net.Conn, t *turn) error {
	x, m := t.exchange, &t.request
	var head bytes.Buffer
	version := "1.1"
	if x.old {
		version = "1.0"
	}
	fmt.Fprintf(&head, "%s /soak/%s HTTP/%s\r\nHost: %s\r\n%s: %s\r\n", x.method, x.id, version, x.host, idField, x.id)
	if !m.trailers {
		fmt.Fprintf(&head, "%s: %s\r\n", digestName, m.digest())
	} else if m.slow {
		fmt.Fprintf(&head, "Trailer: %s\r\n", digestName)
	}
	switch {
	case x.tunnel:
		head.WriteString("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + socketKey + "\r\n")
	case x.te:
		head.WriteString("TE: trailers\r\nConnection: TE\r\n")
	}
	switch {
	case m.none || x.tunnel:
	case m.sized:
		fmt.Fprintf(&head, "Content-Length: %d\r\n", m.size)
	default:
		head.WriteString("Transfer-Encoding: chunked\r\n")
	}
	if x.expect {
		head.WriteString("Expect: 100-continue\r\n")
	}
	head.WriteString("\r\n")

	if x.client == closeInHead {
		conn.Write(head.Bytes()[:1+in(m.pieces).IntN(head.Len()-1)])
		part(conn, x.abrupt)
		return errLeft
	}
	if x.tunnel { // the rest is the reader's
		_, err := conn.Write(head.Bytes())
		return err
	}
	s := &sender{m: m, to: conn, head: head.Bytes(), chunked: !m.sized, none: m.none, trailers: m.trailers, sent: &x.sent}
	if x.client.inRequest() {
		s.fails, s.stop = true, x.clientAt
	}
	if x.expect && m.body() {
		if _, err := conn.Write(s.head); err != nil {
			return err
		}
		s.head = nil
		if !<-t.goAhead {
			return errLeft
		}
	}
	if err := s.send(); err != nil {
		return err
	}
	switch x.client {
	case closeInRequest, resetInRequest:
		part(conn, x.client.resets())
		return errLeft
	case halfCloseInRequest:
		closeWrite(conn)
		return errLeft
	}
	if x.halfway {
		closeWrite(conn)
	}
	return nil
}

// read reads the response, and returns whether another one may follow.
func (c *h1Client) read(conn net.Conn, t *turn) (out result, keep bool) {
	x := t.exchange
	if x.client == closeBeforeResponse && !x.tunnel {
		if !x.expect {
			<-t.wrote
		}
		part(conn, x.abrupt)
		return result{left: true}, false
	}
	res, err := c.head(t)
	if err != nil {
		left := x.client.inRequest()
		if left {
			<-t.wrote
		}
		if !broken(err) && !left {
			x.wrong("the client got a malformed response: %v", err)
		}
		return result{err: err, left: left}, false
	}
	if x.tunnel && res.StatusCode == http.StatusSwitchingProtocols {
		return c.tunnel(conn, t, res), false
	}
	stop := int64(-1)
	if x.client == closeInResponse || x.client == resetInResponse {
		stop = x.clientAt
	}
	out = x.checkResponse(res, stop, func() { part(conn, x.client.resets()) })
	if x.halfway || x.client != sound || x.tunnel {
		return out, false
	}
	return out, out.complete && !res.Close && (!x.expect || !x.request.body() || x.continued(t))
}

// continued reports whether the body was sent, which the server has waited for.
func (x *exchange) continued(t *turn) bool {
	<-t.wrote
	return t.err == nil
}

// head reads the final response's head.
func (c *h1Client) head(t *turn) (*http.Response, error) {
	for {
		res, err := http.ReadResponse(c.r, &http.Request{Method: t.method})
		if err != nil {
			return nil, err
		}
		switch res.StatusCode {
		case http.StatusContinue:
			if !t.expect {
				t.wrong("the client got 100 unasked")
			}
			select {
			case t.goAhead <- true:
			default:
			}
		case http.StatusEarlyHints:
			t.hint(res.Header.Get(hintField))
		default:
			if want := t.plan.hints; res.Header.Get(tryField) != "" && t.hinted != want && !t.flaky && !t.old {
				t.wrong("%d hints arrived of %d", t.hinted, want)
			}
			select {
			case t.goAhead <- false:
			default:
			}
			return res, nil
		}
	}
}

// hint counts a response of status 103.
func (x *exchange) hint(number string) {
	if number != fmt.Sprint(x.hinted) || x.hinted >= x.plan.hints || x.old {
		x.wrong("hint %q after %d of %d", number, x.hinted, x.plan.hints)
	}
	x.hinted++
}

func (c *h1Client) tunnel(conn net.Conn, t *turn, res *http.Response) result {
	x := t.exchange
	try := x.try(res.Header.Get(tryField))
	if try == nil || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") || res.Header.Get("Sec-WebSocket-Accept") != accept(socketKey) {
		x.wrong("an upgrade that no origin agreed to: %v", res.Header)
		return result{status: 101, err: errors.New("no tunnel")}
	}
	e := &tunnelEnd{
		x: x, conn: conn, in: x.receive("tunnel down", &x.plan.response, &x.soak.tally.down, -1), out: &x.request,
		sent: &x.sent, peerSent: &try.sent, fault: x.client, faultAt: x.clientAt,
	}
	err := e.run(c.r)
	return result{status: 101, complete: err == nil, left: e.broke.Load(), err: err}
}
