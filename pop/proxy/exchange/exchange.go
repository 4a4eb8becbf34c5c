// Package exchange defines one HTTP request and its response as they pass
// between the codecs of the worker: what a client's connection carried, what
// is sent to an origin, what comes back.
//
// A front codec reads a [Request] and hands the [Exchange] to a [Handler]; the
// handler answers through the exchange's [Client]. A back codec turns a request
// into a [Response]. Neither codec knows the other, and the package knows no
// wire format: framing fields (Content-Length, Transfer-Encoding, Trailer,
// Host and the pseudo-fields of HTTP/2) are never among the [Fields], the
// codecs keep them in Length, Body, Trailers and Authority. Codecs drop trailers
// that [TrailerAllowed] bans.
//
// # Concurrency
//
// An exchange belongs to the goroutine that runs its handler. A request's Body
// may be read by one other goroutine, such as a back codec's writer.
package exchange

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

// Protocol is what a client speaks.
type Protocol string

// The protocols.
const (
	HTTP10 Protocol = "http/1.0"
	HTTP11 Protocol = "http/1.1"
	HTTP2  Protocol = "http/2"
	HTTP3  Protocol = "http/3"
)

// Version returns the protocol's version number, as in Via (RFC 9110, 7.6.3).
func (p Protocol) Version() string {
	switch p {
	case HTTP10:
		return "1.0"
	case HTTP11:
		return "1.1"
	case HTTP3:
		return "3.0"
	}
	return "2.0"
}

// Conn is what is known of a client's connection. It does not change while
// the connection lives.
type Conn struct {
	// Client is the address of the peer, which may be a hop before us. IPv4
	// addresses are never in IPv6 form.
	Client netip.AddrPort
	// Local is the address that the client connected to.
	Local netip.AddrPort
	// HTTP2 is set when HTTP/2 was agreed on, by ALPN or by its preface.
	HTTP2 bool
	// TLS is nil on a connection in clear text.
	TLS *TLS
}

// Scheme is "https" on TLS, else "http".
func (c *Conn) Scheme() string {
	if c.TLS != nil {
		return "https"
	}
	return "http"
}

// TLS is what a handshake agreed on.
type TLS struct {
	Version    string // "TLS 1.3"
	Cipher     string // the suite's IANA name
	ServerName string // what the client asked for; may be empty
	Resumed    bool
}

// Request is a request's head and body.
type Request struct {
	Protocol Protocol
	Method   string
	// Authority is the host and optional port that the client asked for;
	// empty only when an HTTP/1.0 client named none.
	Authority string
	// Path is the path and query as received: it starts with "/", or is "*". It is
	// empty with CONNECT.
	Path   string
	Fields Fields
	// Length of the body in bytes; 0 when there is none, -1 when the sender
	// did not tell.
	Length int64
	// Body is nil when there is none. Closing it ends every Read under way,
	// and afterwards nothing more is taken from the client.
	Body io.ReadCloser
	// Ready is how many bytes of Body are at hand: that many are read without
	// waiting for the client. 0 if unknown.
	Ready int64
	// Early is set when the request came in TLS early data, which whoever
	// recorded it can send again (RFC 8446, 8).
	Early bool
	// Trailers may be nil. Before Body has returned io.EOF they hold the names
	// that the sender announced, without values; then what it sent under them.
	Trailers *Fields
	// Upgrade is the protocol that the sender wants to switch to; empty if none.
	Upgrade string
	// AcceptsTrailers is set when the sender takes trailers (TE: trailers).
	AcceptsTrailers bool
	// HeadWait and BodyWait bound how long an origin may keep the worker
	// waiting: for its response head, and for each piece of its body. Time
	// spent on waiting for the client does not count; each wait for the origin
	// begins the span anew. Back codecs see to them, with [ErrSlow]. Zero is
	// no bound but the context's.
	HeadWait, BodyWait time.Duration
}

// Response is a final response's head and body. What it refers to is valid
// until its Body is closed.
type Response struct {
	Status int
	Fields Fields
	// Length is what Content-Length says, -1 if nothing. On an answer to HEAD
	// or with status 304 it describes a body that is not sent.
	Length int64
	// Body may be nil, or empty where the response can have none. The receiver
	// of the response closes it.
	Body io.ReadCloser
	// Ready is how many bytes of Body are at hand: that many are read without
	// waiting for the origin. 0 if unknown.
	Ready int64
	// Trailers may be nil; otherwise they are complete once Body has returned
	// io.EOF.
	Trailers *Fields
	// Last asks the client to make no further request on its connection.
	Last bool
	// Tunnel is set when Status is 101, whatever the origin speaks: the connection to it, open in
	// both directions. It is not used any more when Body is closed, if there is
	// one.
	Tunnel Tunnel
}

// What the error of a back codec may wrap tells whether the request can be sent
// again. A body that was touched cannot, whatever the error is.
var (
	// ErrConnect means that there was no connection to the origin: nothing of
	// the request was sent, and its Body was not touched.
	ErrConnect = errors.New("connect to origin")
	// ErrRefused means that the origin said that it did not process the request,
	// by a REFUSED_STREAM or a GOAWAY (RFC 9113, 8.7). Any method may be repeated.
	ErrRefused = errors.New("the origin refused the request unprocessed")
	// ErrUnanswered means that the connection to the origin broke before any
	// byte of a response came. The origin may have processed the request, so
	// only an idempotent one may be repeated (RFC 9110, 9.2.2).
	ErrUnanswered = errors.New("the origin gave no answer")
)

// ErrSlow is wrapped by the error of a back codec that gave up on an origin: see
// [Request.HeadWait].
var ErrSlow = errors.New("the origin keeps silent")

// ErrMalformed is wrapped by the error of a request's body whose framing is
// broken: what follows on the connection cannot be told.
var ErrMalformed = errors.New("the body is malformed")

// ErrHandshake is wrapped by the error of [Client.Upgrade] when the fields are not
// those of an origin that has accepted. Nothing was sent then, and the request
// can still be answered.
var ErrHandshake = errors.New("the origin did not accept the upgrade")

// Tunnel is a connection that left HTTP. Close may be called at any time, by
// any goroutine, and ends Read and Write. Without a CloseWrite before, it is
// broken off: the other end can tell that it did not get all.
type Tunnel interface {
	io.ReadWriteCloser
	// CloseWrite tells the other end that nothing more follows.
	CloseWrite() error
}

// Socket may be implemented by a Tunnel over TCP.
type Socket interface {
	// Reset reports whether the other end has reset the connection, after what
	// looked like an orderly end.
	Reset() bool
	// TCP returns the connection below the tunnel, once nothing that was read
	// from it is left in memory; nil before, and always on TLS. Bytes may then be moved between
	// sockets by the kernel.
	TCP() *net.TCPConn
}

// Refusal says why a front codec does not take a head for a request.
type Refusal struct {
	Status int    // to answer with; 0 if nothing is refused
	Reason string // for the client and the log
}

// Client is the way back to the client, implemented by front codecs. One
// goroutine uses it at a time.
type Client interface {
	// Inform sends an interim response, status 102 to 199. It does nothing
	// where the protocol has none.
	Inform(status int, fields Fields) error
	// Respond sends the final response: the head, then each piece of the body
	// as it comes, then the trailers. When Body ends in an error but io.EOF,
	// or the client does not take a piece in time, the message is broken off
	// in a way that no client takes for complete, and that error is returned.
	// Body is left to the caller to close.
	Respond(r *Response) error
	// Upgrade switches the connection, or the stream, to Request.Upgrade and
	// returns it: with status 101 on HTTP/1.1, with 200 on later versions and for
	// the method CONNECT, for which Upgrade is empty. The caller closes it.
	Upgrade(fields Fields) (Tunnel, error)
}

// Exchange is one request on its way through the worker. The front codec sets
// the first group of fields, the handler the second.
type Exchange struct {
	Conn    *Conn
	Request Request
	Client  Client
	Start   time.Time // when the request's head was complete
	// Refusal is set on a head that is no valid request: Request holds what
	// could be read of it, and all there is to do is to answer. The handler
	// may set it on a head that it refuses itself. An HTTP/1.1 connection ends
	// after it.
	Refusal Refusal

	ID      string         // unique; travels in X-Request-Id
	Route   string         // the route's pattern; empty if none matched
	Pool    string         // the route's pool
	Backend netip.AddrPort // the backend tried last
	Tries   int            // backends tried
	Head    time.Duration  // from Start to the origin's response head; 0 if none came
	Status  int            // the status sent; 0 if none was
	Sent    int64          // bytes of response body taken from the origin
	Outcome Outcome
}

// Handler serves one exchange and returns when it is over. It responds or
// upgrades exactly once; an exchange left without a response is broken off.
// The context ends when the client is gone or the worker gives up on it. The
// exchange and all that it refers to belong to the codec again when the handler
// returns.
type Handler func(ctx context.Context, x *Exchange)
