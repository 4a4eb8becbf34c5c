package soak

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// server is an origin of HTTP/1.1 that does what the plans say.
type server struct {
	soak    *soak
	secured *tls.Config // nil in clear text

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]struct{}
	stopped  bool
	tasks    sync.WaitGroup
}

// startServer serves at an address; the zero one is any that is free.
func startServer(s *soak, at netip.AddrPort, secured *tls.Config) (*server, error) {
	if !at.IsValid() {
		at = netip.MustParseAddrPort("127.0.0.1:0")
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, err
	}
	o := &server{soak: s, secured: secured, listener: l, conns: make(map[net.Conn]struct{})}
	o.tasks.Go(o.accept)
	return o, nil
}

func (o *server) address() netip.AddrPort { return o.listener.Addr().(*net.TCPAddr).AddrPort() }

// kill stops the origin and breaks off what is under way.
func (o *server) kill(abrupt bool) {
	o.listener.Close()
	o.mu.Lock()
	o.stopped = true
	for conn := range o.conns {
		part(conn, abrupt)
	}
	o.mu.Unlock()
	o.tasks.Wait()
}

// part ends a connection, with a reset or without.
func part(conn net.Conn, abrupt bool) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok && abrupt {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// closeWrite ends the sending direction.
func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

func (o *server) accept() {
	for {
		conn, err := o.listener.Accept()
		if err != nil {
			return
		}
		if o.secured != nil {
			conn = tls.Server(conn, o.secured)
		}
		o.mu.Lock()
		if o.stopped {
			conn.Close()
		} else {
			o.conns[conn] = struct{}{}
			o.tasks.Go(func() { o.serve(conn) })
		}
		o.mu.Unlock()
	}
}

func (o *server) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		o.mu.Lock()
		delete(o.conns, conn)
		o.mu.Unlock()
	}()
	r := bufio.NewReader(conn)
	for {
		if _, err := r.Peek(1); err != nil {
			return // closed between requests
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			if !broken(err) {
				o.soak.wrong("malformed", fmt.Sprintf("an origin got a malformed request: %v", err))
			}
			return
		}
		x := o.soak.find(req.Header.Get(idField))
		if x == nil { // it is long over
			o.soak.event("forgotten exchanges at origins")
			return
		}
		a := &answer{x: x, t: x.newTry(), conn: conn, r: r, req: req}
		if !a.serve() {
			return
		}
	}
}

// broken reports whether an error is about a connection, and not about what
// came over it.
func broken(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	return ok && !record || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe)
}

// answer is one request at an origin and the response to it.
type answer struct {
	x    *exchange
	t    *try
	conn net.Conn
	r    *bufio.Reader
	req  *http.Request
}

// serve returns whether another request may follow.
func (a *answer) serve() (keep bool) {
	x, req := a.x, a.req
	defer close(a.t.ended)
	if req.Host != x.host || req.Method != x.method && !x.tunnel {
		x.wrong("the origin got %s at %s, want %s", req.Method, req.Host, x.host)
	}
	if x.origin == failInRequest && x.originAt == 0 {
		part(a.conn, x.abrupt)
		return false
	}
	if x.tunnel {
		a.tunnel()
		return false
	}
	if strings.EqualFold(req.Header.Get("Expect"), "100-continue") {
		io.WriteString(a.conn, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	in := x.receive("request", &x.request, &x.soak.tally.up, -1)
	body := io.Reader(req.Body)
	switch {
	case x.origin == failInRequest:
		in.stop = x.originAt
		in.all(body)
		part(a.conn, x.abrupt)
		return false
	case x.early >= 0:
		in.stop = x.early
	}
	err := in.all(body)
	var rest sync.WaitGroup
	if err == errLeft {
		in.stop = -1
		rest.Go(func() { a.finish(in, in.all(body)) })
		err = nil
	} else {
		a.finish(in, err)
	}
	if err == nil {
		keep = a.respond()
	}
	linger := !keep && (x.origin == sound || x.origin == closeWithoutNotice)
	if linger { // a reset would destroy what the peer has not read yet
		closeWrite(a.conn)
		a.conn.SetReadDeadline(time.Now().Add(time.Second))
	}
	rest.Wait()
	if linger {
		io.Copy(io.Discard, a.r)
	}
	return keep && a.t.whole.Load()
}

// endsInTrailers reports whether the connection ended within the trailers, which
// net/http calls too long then.
func (a *answer) endsInTrailers(err error) bool {
	if !strings.Contains(err.Error(), "suspiciously long trailer") {
		return false
	}
	_, err = a.r.Peek(a.r.Size())
	return err != nil
}

// finish judges a request that was read.
func (a *answer) finish(in *receiver, err error) {
	x := a.x
	if err != nil {
		if !broken(err) && !a.endsInTrailers(err) && !strings.Contains(err.Error(), "wrong bytes") {
			x.wrong("the origin got a request that is malformed at %d: %v", in.got, err)
		}
		return
	}
	if !x.sent.Load() {
		x.wrong("an unfinished request looked complete to the origin after %d bytes", in.got)
		return
	}
	a.t.whole.Store(true)
	if !x.request.none {
		in.complete(a.req.Header, a.req.Trailer, false)
	}
}

// respond sends the response, and returns whether the connection may be kept.
func (a *answer) respond() (keep bool) {
	x, m := a.x, &a.x.response
	time.Sleep(x.late)
	switch x.origin {
	case failBeforeHead:
		part(a.conn, x.abrupt)
		return false
	case garbageHead:
		io.WriteString(a.conn, pick(in(m.pieces), "HTTP/1.1 2000 OK\r\n\r\n", "\r\n\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent Length: 2\r\n\r\n0\r\n\r\n", "garbage\r\n", "HTTP/1.1 200 OK\r\n"))
		part(a.conn, false)
		return false
	}
	var head bytes.Buffer
	for i := range x.hints {
		fmt.Fprintf(&head, "HTTP/1.1 103 Early Hints\r\n%s: %d\r\n\r\n", hintField, i)
	}
	if m.slow && x.hints > 0 {
		a.conn.Write(head.Bytes())
		head.Reset()
	}
	fmt.Fprintf(&head, "HTTP/1.1 %d Whatever\r\n%s: %d\r\n%s: %d\r\n", x.status, tryField, a.t.number, sizeField, m.size)
	bare := x.bare && !m.none
	switch {
	case m.none && (x.status == 204 || !m.sized):
	case m.sized:
		fmt.Fprintf(&head, "Content-Length: %d\r\n", m.size)
	case !bare:
		head.WriteString("Transfer-Encoding: chunked\r\n")
	}
	if !m.trailers {
		fmt.Fprintf(&head, "%s: %s\r\n", digestName, m.digest())
	} else if m.slow {
		fmt.Fprintf(&head, "Trailer: %s\r\n", digestName)
	}
	last := x.last || bare
	if last {
		head.WriteString("Connection: close\r\n")
	}
	head.WriteString("\r\n")

	out := &sender{m: m, to: a.conn, head: head.Bytes(), chunked: !m.sized && !bare, none: m.none, trailers: m.trailers, sent: &a.t.sent}
	fails := x.origin == failInResponse || x.origin == garbageInResponse
	if fails {
		out.stop, out.fails = x.originAt, true
	}
	if err := out.send(); err != nil {
		return false
	}
	switch {
	case x.origin == garbageInResponse && out.chunked:
		io.WriteString(a.conn, pick(in(m.pieces), "zz\r\n", "-1\r\n", "0x10\r\n", "5\nabcde\r\n0\r\n\r\n", "0\r\nbad trailer\r\n\r\n"))
		part(a.conn, false)
		return false
	case fails:
		part(a.conn, x.abrupt)
		return false
	}
	return !last && x.origin != closeWithoutNotice
}

// tunnel serves a WebSocket.
func (a *answer) tunnel() {
	x := a.x
	if !strings.EqualFold(a.req.Header.Get("Upgrade"), "websocket") {
		x.wrong("the origin was not asked to upgrade: %v", a.req.Header)
		return
	}
	time.Sleep(x.late)
	switch x.origin {
	case failBeforeHead, failInRequest, garbageHead:
		part(a.conn, x.abrupt)
		return
	}
	fmt.Fprintf(a.conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s: %d\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		tryField, a.t.number, accept(a.req.Header.Get("Sec-WebSocket-Key")))
	e := &tunnelEnd{
		x: x, conn: a.conn, in: x.receive("tunnel up", &x.request, &x.soak.tally.up, -1), out: &x.response,
		sent: &a.t.sent, peerSent: &x.sent, fault: x.origin, faultAt: x.originAt, abrupt: x.abrupt,
	}
	e.run(a.r)
}

// accept answers the key of a WebSocket handshake (RFC 6455, 4.2.2).
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
