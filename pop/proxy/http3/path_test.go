package http3

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"anyedge/pop/proxy/exchange"
)

// whoami tells the handler's client address to the channel.
func whoami(seen chan netip.AddrPort) exchange.Handler {
	return func(ctx context.Context, x *exchange.Exchange) {
		seen <- x.Conn.Client
		if x.Request.Path == "/bulk" {
			x.Client.Respond(&exchange.Response{Status: 200, Length: 3 << 20, Body: io.NopCloser(&bulk{n: 3 << 20})})
			return
		}
		ok(ctx, x)
	}
}

// A NAT gives the client another port, in the middle of a download.
func TestRebinding(t *testing.T) {
	seen := make(chan netip.AddrPort, 2)
	e := handlerServe(t, whoami(seen))
	r := newRelay(t, e.addr)
	c, err := dial(t, r.addr, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	h3 := c.h3()
	res := roundTrip(t, h3, request("GET", "/bulk", nil))
	if _, err := io.CopyN(io.Discard, res.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	r.rebind()
	if got, want := sum(res.Body), sum(&bulk{at: 1 << 20, n: 3 << 20}); got != want {
		t.Errorf("download: %s, want %s", got, want)
	}
	if body := text(t, roundTrip(t, h3, request("GET", "/", nil))); body != "GET localhost /" {
		t.Error(body)
	}
	before, after := <-seen, <-seen
	if before == after || before.Addr() != after.Addr() || e.count("migrations") != 1 {
		t.Errorf("from %v to %v, %v migrations", before, after, e.count("migrations"))
	}
}

// The client moves to another socket, during an upload.
func TestClientMigration(t *testing.T) {
	seen := make(chan netip.AddrPort, 2)
	e := handlerServe(t, func(ctx context.Context, x *exchange.Exchange) {
		seen <- x.Conn.Client
		if x.Request.Body != nil {
			if got := sum(x.Request.Body); got != sum(&bulk{n: 3 << 20}) {
				t.Errorf("upload: %s", got)
			}
		}
		ok(ctx, x)
	})
	c := e.connect(t)
	h3 := c.h3()
	in, out := io.Pipe()
	go func() {
		b := &bulk{n: 3 << 20}
		io.CopyN(out, b, 1<<20)
		socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Error(err)
			return
		}
		other := &quic.Transport{Conn: socket, ConnectionIDLength: 8}
		t.Cleanup(func() {
			c.qc.CloseWithError(codeNoError, "")
			other.Close()
			socket.Close()
		})
		path, err := c.qc.AddPath(other)
		if err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			err = errors.Join(path.Probe(ctx), path.Switch())
		}
		if err != nil {
			t.Error(err)
		}
		io.Copy(out, b)
		out.Close()
	}()
	text(t, roundTrip(t, h3, request("PUT", "/", in)))
	text(t, roundTrip(t, h3, request("GET", "/", nil)))
	before, after := <-seen, <-seen
	if before == after || e.count("migrations") != 1 {
		t.Errorf("from %v to %v, %v migrations", before, after, e.count("migrations"))
	}
}

// Clients prove their address while many handshakes are under way.
func TestRetry(t *testing.T) {
	c := config(ok)
	c.RetryAbove = 2
	e := serve(t, c)
	var relays []*relay
	results := make(chan error, 3)
	for range 3 {
		r := newRelay(t, e.addr)
		r.hold(false, true)
		relays = append(relays, r)
		go func() {
			_, err := dial(t, r.addr, nil, false)
			results <- err
		}()
	}
	await(t, "handshakes are under way", func() bool { return e.handshaking.Load() == 3 })
	if n := e.count("retries"); n != 0 {
		t.Errorf("%v retries below the bound", n)
	}
	e.connect(t)
	retries := e.count("retries")
	if retries == 0 {
		t.Error("no retry above the bound")
	}
	for _, r := range relays {
		r.hold(false, false)
	}
	for range relays {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	await(t, "the handshakes are over", func() bool { return e.handshaking.Load() == 0 })
	e.connect(t)
	if n := e.count("retries"); n != retries {
		t.Errorf("%v retries after the load was over", n-retries)
	}
	await(t, "all are counted", func() bool { return e.count("handshakes:"+handshakeFull) == 5 })
}

// A token from one node is proof enough at another that has the same key.
func TestTokensOfOtherNodes(t *testing.T) {
	for _, tt := range []struct {
		name    string
		key     [32]byte
		retried bool
	}{{"same key", [32]byte{2}, false}, {"other key", [32]byte{3}, true}} {
		t.Run(tt.name, func(t *testing.T) {
			fra := handlerServe(t, ok)
			c := config(ok)
			c.RetryAbove, c.TokenKey = -1, tt.key
			iad := serve(t, c)
			socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			transport := &quic.Transport{Conn: socket, ConnectionIDLength: 8}
			defer socket.Close()
			defer transport.Close()
			store := &tokenStore{put: make(chan *quic.ClientToken, 1)}
			for _, e := range []*edge{fra, iad} {
				qc, err := transport.Dial(t.Context(), e.addr, clientTLS(), &quic.Config{TokenStore: store})
				if err != nil {
					t.Fatal(err)
				}
				if e == fra {
					select {
					case store.kept = <-store.put:
					case <-time.After(patience):
						t.Fatal("no token")
					}
				}
				qc.CloseWithError(codeNoError, "")
			}
			if n := iad.count("retries"); n > 0 != tt.retried {
				t.Errorf("%v retries", n)
			}
		})
	}
}

// tokenStore is a client's memory of address validation.
type tokenStore struct {
	put  chan *quic.ClientToken
	kept *quic.ClientToken
}

func (s *tokenStore) Pop(string) *quic.ClientToken { return s.kept }

func (s *tokenStore) Put(_ string, token *quic.ClientToken) {
	select {
	case s.put <- token:
	default:
	}
}

// Clients of a worker that died learn it from the next one.
func TestStatelessReset(t *testing.T) {
	for _, tt := range []struct {
		name string
		key  [32]byte
		told bool
	}{{"same key", [32]byte{1}, true}, {"other key", [32]byte{9}, false}} {
		t.Run(tt.name, func(t *testing.T) {
			first := handlerServe(t, ok)
			c := config(ok)
			c.ResetKey = tt.key
			second := serve(t, c)
			r := newRelay(t, first.addr)
			cl, err := dial(t, r.addr, nil, false)
			if err != nil {
				t.Fatal(err)
			}
			call := cl.begin(get("GET", "/"))
			call.Close()
			call.answer()
			r.retarget(second.addr)
			cl.begin(get("GET", "/"+string(make([]byte, 60)))).Close()
			wait := patience
			if !tt.told {
				wait = 200 * time.Millisecond
			}
			select {
			case <-cl.qc.Context().Done():
			case <-time.After(wait):
			}
			var reset *quic.StatelessResetError
			if told := errors.As(context.Cause(cl.qc.Context()), &reset); told != tt.told {
				t.Errorf("told %v: %v", told, context.Cause(cl.qc.Context()))
			}
		})
	}
}

// IDs that were made for steering are on the wire.
func TestConnectionIDs(t *testing.T) {
	c := config(ok)
	n := byte(0)
	c.ConnectionID = func(id *[ConnectionIDLength]byte) {
		n++
		*id = [ConnectionIDLength]byte{0xed, n, 6: 7}
	}
	e := serve(t, c)
	var steered, other atomic.Int32
	r := newRelay(t, e.addr)
	r.mu.Lock()
	r.see = func(b []byte) {
		switch {
		case b[0]&0x80 != 0: // not of an established connection
		case b[1] == 0xed && b[7] == 7:
			steered.Add(1)
		default:
			other.Add(1)
		}
	}
	r.mu.Unlock()
	cl, err := dial(t, r.addr, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		call := cl.begin(get("GET", "/"))
		call.Close()
		if _, _, _, err := call.answer(); err != nil {
			t.Fatal(err)
		}
	}
	if steered.Load() == 0 || other.Load() > 0 {
		t.Errorf("%d packets could be steered, %d not", steered.Load(), other.Load())
	}
}
