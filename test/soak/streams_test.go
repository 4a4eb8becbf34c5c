package soak

//lint:file-ignore SA1019 net/http's own clients refuse the field :protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// session is one connection with streams.
type session interface {
	RoundTrip(*http.Request) (*http.Response, error)
	usable() bool   // whether it takes a further request
	end(reset bool) // ends it and all its streams
	name() string   // the client's address
}

// notice is something that all exchanges of a session are to know once it is so.
type notice struct {
	once sync.Once
	told chan struct{}
}

func newNotice() *notice { return &notice{told: make(chan struct{})} }

func (n *notice) give() { n.once.Do(func() { close(n.told) }) }

func (n *notice) given() bool {
	select {
	case <-n.told:
		return true
	default:
		return false
	}
}

// streamsClient makes requests on one connection at a time, several at once.
type streamsClient struct {
	soak    *soak
	front   *front
	rand    *rand.Rand
	draw    func() *exchange
	streams int

	session session
	cut     *notice // that the session was cut by us, which the server learns late
	told    *notice // that the server takes no further request on it
}

func (c *streamsClient) run(ctx context.Context) {
	for ctx.Err() == nil {
		s, err := c.front.open(ctx, c.soak.edge)
		if err != nil {
			c.draw().judge(result{err: err}, ctx.Err() != nil)
			continue
		}
		c.session, c.cut, c.told = s, newNotice(), newNotice()
		var streams sync.WaitGroup
		slots := make(chan struct{}, c.streams)
		for range 1 + c.rand.IntN(64) {
			slots <- struct{}{}
			if ctx.Err() != nil || c.told.given() || !s.usable() {
				break
			}
			x := c.draw()
			streams.Go(func() {
				defer func() { <-slots }()
				c.exchange(ctx, x)
			})
		}
		streams.Wait()
		s.end(c.rand.IntN(2) == 0)
	}
}

// exchange makes one request.
func (c *streamsClient) exchange(ctx context.Context, x *exchange) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	out := c.attempt(ctx, x, cancel)
	if out.err != nil {
		out.err = fmt.Errorf("%w (%d tries; the worker: %s)", out.err, x.tried(), c.soak.edge.log.about(c.session.name()))
	}
	excused := c.cut.given()
	if told := toGo(out.err) || !out.left && goneByItself(out.err); told && !excused {
		// The server has said that it did not process the request.
		if x.tried() > 0 {
			x.wrong("the client was told that its request was not processed: %v", out.err)
		}
		out.unserved = true
		c.told.give()
	}
	x.judge(out, excused)
}

// toGo reports whether a server refused a request unprocessed, because the
// connection ends.
func toGo(err error) bool {
	if err == nil {
		return false
	}
	if s, ok := errors.AsType[http2.StreamError](err); ok && s.Code == http2.ErrCodeRefusedStream {
		return true
	}
	// A request may cross with the orderly end of its connection.
	if s, ok := errors.AsType[*http3.Error](err); ok && s.Remote && (s.ErrorCode == http3.ErrCodeRequestRejected || s.ErrorCode == http3.ErrCodeNoError) {
		return true
	}
	text := err.Error()
	return strings.Contains(text, "graceful shutdown GOAWAY") || strings.Contains(text, "client connection not usable") ||
		strings.Contains(text, "client conn not usable") || strings.Contains(text, "http3: conn unusable")
}

// goneByItself reports whether quic-go's client has ended the connection itself,
// as it does after a GOAWAY when it knows of no request, and with it one that it
// has not sent, or that the exchange has left.
func goneByItself(err error) bool {
	s, ok := errors.AsType[*quic.ApplicationError](err)
	return ok && !s.Remote && s.ErrorCode == quic.ApplicationErrorCode(http3.ErrCodeNoError)
}

func (c *streamsClient) attempt(ctx context.Context, x *exchange, cancel func()) result {
	up := &upload{x: x, client: c, cancel: cancel, done: make(chan struct{}), pieces: make(chan []byte), ctx: ctx}
	req, err := c.request(ctx, x, up)
	if err != nil {
		return result{err: err}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	switch {
	case x.tunnel: // begins when the origin has agreed (RFC 6455, 4.1)
	case req.Body != nil:
		wg.Go(up.run)
	default:
		x.sent.Store(true)
		up.Close()
	}
	if x.client == closeBeforeResponse {
		leave := time.AfterFunc(time.Duration(x.clientAt%100)*time.Millisecond, cancel)
		defer leave.Stop()
	}
	res, err := c.session.RoundTrip(req)
	if err != nil {
		return result{err: err, left: x.client.inRequest() || x.client == closeBeforeResponse || x.client == cutInResponse}
	}
	defer res.Body.Close()
	if x.tunnel && res.StatusCode == http.StatusOK && res.Header.Get(tryField) != "" {
		wg.Go(up.run)
		return x.tunnelled(res, up)
	}
	if res.Header.Get(tryField) != "" && x.hinted != x.plan.hints && !x.flaky {
		x.wrong("%d hints arrived of %d", x.hinted, x.plan.hints)
	}
	stop := int64(-1)
	if !x.client.inRequest() && x.client != sound && x.client != closeBeforeResponse {
		stop = x.clientAt
	}
	out := x.checkResponse(res, stop, func() { c.leave(x.client, cancel, res.Body) })
	if out.complete && x.client == sound && !out.own {
		x.awaitEnd(ctx, c.cut, res)
	}
	if x.client == closeBeforeResponse || x.client.inRequest() {
		out.left = !out.complete
	}
	return out
}

// leave does what a fault says.
func (c *streamsClient) leave(f fault, cancel func(), body io.Closer) {
	switch f {
	case cutInRequest, cutInResponse:
		c.cut.give()
		c.session.end(true)
	case closeInResponse:
		body.Close()
	default:
		cancel()
	}
}

func (c *streamsClient) request(ctx context.Context, x *exchange, up *upload) (*http.Request, error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, fields textproto.MIMEHeader) error {
			if code == http.StatusEarlyHints {
				x.hint(fields.Get(hintField))
			}
			return nil
		},
	})
	req, err := http.NewRequestWithContext(ctx, x.method, c.front.scheme()+"://"+x.host+"/soak/"+x.id, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set(idField, x.id)
	m := &x.plan.request
	if !m.none {
		req.Body, req.ContentLength = up, -1
		if m.sized {
			req.ContentLength = m.size
		}
		if m.sized && m.size == 0 {
			req.Body = nil
		}
	}
	if !m.trailers {
		req.Header.Set(digestName, m.digest())
	} else {
		req.Trailer = http.Header{digestName: nil}
		up.trailer = req.Trailer
	}
	if x.te {
		req.Header.Set("TE", "trailers")
	}
	if x.expect && !m.none {
		req.Header.Set("Expect", "100-continue")
	}
	if x.tunnel {
		req.Method = http.MethodConnect
		if c.front.alpn == "h2" {
			req.Header[":protocol"] = []string{"websocket"}
		} else {
			req.Proto = "websocket"
		}
		req.Body, req.ContentLength, req.Trailer, up.trailer = up, -1, nil, nil
		req.Header.Set("Sec-WebSocket-Version", "13")
		delete(req.Header, "Expect")
	}
	return req, nil
}

// upload is a request's body. run writes it, the client reads it.
type upload struct {
	x       *exchange
	client  *streamsClient
	ctx     context.Context
	cancel  func()
	trailer http.Header // nil without trailers
	pieces  chan []byte
	rest    []byte
	closing sync.Once
	done    chan struct{} // closed when nobody reads any more
}

// errGone says that nobody reads any more.
var errGone = errors.New("gone")

// run hands out the pieces as the plan says.
func (u *upload) run() {
	x, m := u.x, &u.x.plan.request
	stop := m.size
	fails := x.client.inRequest() || x.tunnel && x.client != sound
	if fails {
		stop = min(x.clientAt, m.size)
	}
	done := int64(0)
	err := m.cut(stop, func(piece []byte) error {
		done += int64(len(piece))
		if done == m.size && m.sized && !x.tunnel {
			x.sent.Store(true) // the receiver counts
		}
		select {
		case u.pieces <- piece:
			return nil
		case <-u.done:
			return errGone
		case <-u.ctx.Done():
			return errGone
		}
	})
	switch {
	case err != nil:
		return
	case !fails:
		close(u.pieces)
	case x.client == closeInRequest: // the reader is told
		select {
		case u.pieces <- nil:
		case <-u.done:
		case <-u.ctx.Done():
		}
	default:
		f := x.client
		if f == closeInResponse { // of a tunnel
			f = resetInResponse
		}
		u.client.leave(f, u.cancel, nil)
	}
}

// Read implements [io.Reader].
func (u *upload) Read(p []byte) (int, error) {
	if len(u.rest) == 0 {
		select {
		case piece, ok := <-u.pieces:
			if !ok {
				if u.trailer != nil {
					u.trailer.Set(digestName, u.x.plan.request.digest())
				}
				u.x.sent.Store(true)
				return 0, io.EOF
			}
			if piece == nil {
				return 0, errLeft
			}
			u.rest = piece
		case <-u.done:
			return 0, errGone
		case <-u.ctx.Done():
			return 0, u.ctx.Err()
		}
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

// Close implements [io.Closer].
func (u *upload) Close() error {
	u.closing.Do(func() { close(u.done) })
	return nil
}

// awaitEnd waits until the origin has got all it will get of the request: to
// close the response earlier would break that off.
func (x *exchange) awaitEnd(ctx context.Context, cut *notice, res *http.Response) {
	if t := x.try(res.Header.Get(tryField)); t != nil {
		select {
		case <-t.ended:
		case <-cut.told:
		case <-ctx.Done():
			x.wrong("the response is complete, but the request does not end; the client has sent all of it: %t", x.sent.Load())
		}
	}
}

// tunnelled receives what comes through a tunnel, while the upload runs.
func (x *exchange) tunnelled(res *http.Response, up *upload) result {
	t := x.try(res.Header.Get(tryField))
	if t == nil {
		x.wrong("a tunnel that no origin agreed to")
		return result{err: errGone}
	}
	r := x.receive("tunnel down", &x.plan.response, &x.soak.tally.down, -1)
	err := r.all(res.Body)
	if err == nil {
		if t.sent.Load() && r.got != x.plan.response.size {
			x.wrong(shortTunnel, r.what, r.got, r.m.size)
		}
		if x.client == sound {
			x.awaitEnd(up.ctx, up.client.cut, res)
		}
	}
	return result{status: 101, complete: err == nil, left: x.client != sound, err: err}
}

// h2Session is a connection of HTTP/2.
type h2Session struct {
	*http2.ClientConn
	conn net.Conn
}

func (f *front) openH2(ctx context.Context, e *edge) (session, error) {
	conn, err := f.dial(ctx, e)
	if err != nil {
		return nil, err
	}
	transport := &http2.Transport{AllowHTTP: true, DisableCompression: true}
	client, err := transport.NewClientConn(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &h2Session{client, conn}, nil
}

func (s *h2Session) usable() bool { return s.CanTakeNewRequest() }

func (s *h2Session) name() string { return s.conn.LocalAddr().String() }

func (s *h2Session) end(reset bool) {
	if reset {
		part(s.conn, true)
	}
	s.ClientConn.Close()
}
