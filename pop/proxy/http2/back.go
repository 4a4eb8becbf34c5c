package http2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"anyedge/pop/proxy/exchange"
)

// maxResponseHead bounds an origin's response head, and its trailers, in bytes
// as RFC 9113, 6.5.2 counts them.
const maxResponseHead = 256 << 10

// ErrNoWebSocket means that the origin takes no WebSocket on HTTP/2 (RFC 8441).
// Nothing of the request was sent.
var ErrNoWebSocket = errors.New("the origin takes no WebSocket over HTTP/2")

// Dial connects to an origin. The connection is ready for HTTP/2: TLS, if any,
// is done, and h2 was agreed on, or the origin is known to speak it.
type Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

// BackConfig says how a back speaks to origins.
type BackConfig struct {
	Dial           Dial
	Log            *slog.Logger // gets why connections ended, at debug level
	MaxHeaderBytes int          // of a response's head, and of its trailers; 0 means 256 KiB
}

// Back sends requests to origins over connections that they share.
//
// An origin has one connection as long as that has streams to spare: as many as
// the origin allows, and 100 at most. Then another one is dialed, up to eight;
// then requests wait for the end of others.
type Back struct {
	config BackConfig
	trips  sync.Pool       // of *trip
	groups sync.Map        // netip.AddrPort -> *group
	life   context.Context // of connections that are being dialed
	end    context.CancelFunc

	mu      sync.Mutex
	stopped bool
	tasks   sync.WaitGroup // one for each connection
}

// NewBack returns a back that has no connection yet.
func NewBack(config BackConfig) *Back {
	config.MaxHeaderBytes = cmp.Or(config.MaxHeaderBytes, maxResponseHead)
	b := &Back{config: config}
	b.life, b.end = context.WithCancel(context.Background())
	return b
}

// Run waits for the end of ctx. Then no connection is dialed any more, those
// that are idle are closed, the others when their last stream ends; Run returns
// nil after that.
func (b *Back) Run(ctx context.Context) error {
	<-ctx.Done()
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	b.end()
	b.CloseIdle()
	b.tasks.Wait()
	return nil
}

// start runs task on a goroutine that Run joins. It returns false when Run is
// about to end.
func (b *Back) start(task func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return false
	}
	b.tasks.Go(task)
	return true
}

// CloseIdle closes the connections that have no streams; those that have some
// take no more, and are closed when the last one ends.
func (b *Back) CloseIdle() {
	b.groups.Range(func(_, g any) bool {
		g.(*group).flush()
		return true
	})
}

// Adopt makes conn, on which h2 was agreed, a connection to an origin as if
// Dial had returned it. It is closed if the origin has enough of them.
func (b *Back) Adopt(to netip.AddrPort, conn net.Conn) {
	if !b.group(to).adopt(conn) {
		conn.Close()
	}
}

func (b *Back) group(to netip.AddrPort) *group {
	if g, ok := b.groups.Load(to); ok {
		return g.(*group)
	}
	g, _ := b.groups.LoadOrStore(to, &group{back: b, to: to})
	return g.(*group)
}

// RoundTrip sends r to the origin and returns its response head; the body
// follows, and must be closed even if it is empty. inform is called for each
// interim response but 100, before RoundTrip returns; its fields are valid until
// it does.
//
// The end of ctx ends the whole exchange, body included, but not a tunnel; it
// may be noticed a moment later. So do r.HeadWait and r.BodyWait. The stream is
// then reset, and the connection goes on. The error wraps [exchange.ErrConnect]
// if nothing was sent, [exchange.ErrRefused] and [exchange.ErrUnanswered] as
// they say. r.Body is closed if the origin's response ends before it, or if
// sending failed after it was touched.
//
// A request of whose body nothing was taken is sent once more, on another
// connection if there is one, if the origin refused it, or if a connection that
// had served before ends without an answer to it and its method is idempotent
// (RFC 9110, 9.2.2).
//
// A request with Upgrade "websocket" becomes an extended CONNECT (RFC 8441), and
// the origin's consent a response with status 101 and a tunnel. Other values of
// Upgrade are ignored: HTTP/2 has no upgrades.
func (b *Back) RoundTrip(ctx context.Context, to netip.AddrPort, r *exchange.Request, inform func(status int, fields exchange.Fields)) (*exchange.Response, error) {
	t, _ := b.trips.Get().(*trip)
	if t == nil {
		t = newTrip(b)
	}
	t.ctx, t.request, t.to, t.inform = ctx, r, to, inform
	g := b.group(to)
	var refused *link
	for {
		l, err := g.acquire(ctx, r.HeadWait, refused)
		if err == nil {
			err = t.try(l)
		}
		switch {
		case err == nil:
			return &t.response, nil
		case errors.Is(err, errStale):
			continue
		case l == nil && t.whole != nil:
			t.free()
			return nil, fmt.Errorf("send request: %v", err) // not ErrConnect: the body was touched
		case refused != nil || ctx.Err() != nil || l == nil || !t.repeatable(err):
			t.free()
			return nil, err
		}
		refused = l
		t.renew()
	}
}
