package http2

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

var testOrigin = netip.MustParseAddrPort("192.0.2.9:80")

// origins are what a back under test dials: peers that say exactly what they
// are told to.
type origins struct {
	t     *testing.T
	back  *Back
	peers chan *peer // that were dialed, in order
	fail  error      // of the next dials, if not nil
	dials int
}

// newOrigins returns a back that runs until the test ends. It is called in a
// bubble.
func newOrigins(t *testing.T) *origins {
	o := &origins{t: t, peers: make(chan *peer, 100)}
	o.back = NewBack(BackConfig{Dial: o.dial, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func(back *Back) {
		defer close(ran)
		back.Run(ctx)
	}(o.back)
	t.Cleanup(func() {
		cancel()
		<-ran
	})
	return o
}

func (o *origins) dial(context.Context, netip.AddrPort) (net.Conn, error) {
	o.dials++
	if o.fail != nil {
		return nil, o.fail
	}
	near, far := net.Pipe()
	p := connectedTo(far)
	p.t, p.frames = o.t, make(chan received, 10000)
	o.t.Cleanup(func() { far.Close() })
	go func() {
		preface := make([]byte, len(h2.ClientPreface))
		switch n, err := io.ReadFull(far, preface); {
		case n == 0: // not used at all
			close(p.frames)
		case err != nil || string(preface) != h2.ClientPreface:
			o.t.Errorf("preface %q, %v", preface, err)
		default:
			p.read()
		}
	}()
	o.peers <- p
	return near, nil
}

// greet returns the next peer that is dialed, after it has sent its settings.
func (o *origins) greet(settings ...h2.Setting) *peer {
	o.t.Helper()
	p := <-o.peers
	p.framer.WriteSettings(settings...)
	p.expect(h2.FrameSettings, 0)
	p.framer.WriteSettingsAck()
	p.expect(h2.FrameSettings, 0)
	return p
}

// result is what came of a request.
type result struct {
	res *exchange.Response
	err error
}

// send sends a request. What comes of it is received from the channel.
func (o *origins) send(ctx context.Context, r *exchange.Request) chan result {
	got := make(chan result, 1)
	go func() {
		res, err := o.back.RoundTrip(ctx, testOrigin, r, func(int, exchange.Fields) {})
		got <- result{res, err}
	}()
	return got
}

// get sends a request without a body.
func (o *origins) get() chan result { return o.send(context.Background(), newGet()) }

func newGet() *exchange.Request {
	return &exchange.Request{Method: "GET", Authority: "a.example", Path: "/"}
}

func newPost(body io.ReadCloser, length int64) *exchange.Request {
	return &exchange.Request{Method: "POST", Authority: "a.example", Path: "/", Body: body, Length: length}
}

// established returns a peer to which a request was made and answered.
func (o *origins) established(settings ...h2.Setting) *peer {
	o.t.Helper()
	got := o.get()
	p := o.greet(settings...)
	p.expect(h2.FrameHeaders, 1)
	p.raw(1, true, ":status", "200")
	o.ok(got, 200, "")
	return p
}

// ok expects a response with a status and a body, to its end.
func (o *origins) ok(got chan result, status int, body string) {
	o.t.Helper()
	r := <-got
	if r.err != nil {
		o.t.Fatal(r.err)
	}
	b, err := io.ReadAll(r.res.Body)
	if r.res.Status != status || string(b) != body || err != nil {
		o.t.Fatalf("status %d, body %q, %v; want %d, %q", r.res.Status, b, err, status, body)
	}
	r.res.Body.Close()
}

// fails expects an error that is target, unless that is nil.
func (o *origins) fails(got chan result, target error) error {
	o.t.Helper()
	r := <-got
	if r.err == nil {
		_, r.err = io.ReadAll(r.res.Body)
		r.res.Body.Close()
	}
	if r.err == nil || target != nil && !errors.Is(r.err, target) {
		o.t.Fatalf("error %v, want %v", r.err, target)
	}
	return r.err
}

// bubble runs a test on virtual time, and sees that no buffer is left.
func bubble(t *testing.T, test func(t *testing.T, o *origins)) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) { test(t, newOrigins(t)) })
}

// clientBody is a body of a client that is written to piece by piece.
type clientBody struct {
	io.Reader
	closed chan struct{}
}

func newClientBody() (*clientBody, *io.PipeWriter) {
	r, w := io.Pipe()
	b := &clientBody{Reader: r, closed: make(chan struct{})}
	return b, w
}

func (b *clientBody) Close() error {
	close(b.closed)
	return b.Reader.(io.Closer).Close()
}

// wholeBody is a body that is at hand.
func wholeBody(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }
