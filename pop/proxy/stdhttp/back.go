package stdhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"anyedge/pop/proxy/exchange"
)

const (
	// maxResponseHead bounds an origin's response head, in bytes.
	maxResponseHead = 256 << 10
	// maxIdle bounds the idle connections kept to one origin.
	maxIdle = 256
	// idleTimeout is how long one is kept. It is short of what origins
	// commonly wait, so that it is rarely they who close first.
	idleTimeout = 45 * time.Second
	// continueTimeout is the wait for an origin's 100 (Continue).
	continueTimeout = time.Second
)

// Back sends requests to origins with HTTP/1.1 and keeps their connections.
type Back struct {
	transport *http.Transport
}

// NewBack returns a back that connects with dial, whose connections are ready
// for HTTP/1.1: TLS, if any, is done.
func NewBack(dial func(context.Context, netip.AddrPort) (net.Conn, error)) *Back {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &Back{transport: &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", exchange.ErrConnect, err)
			}
			conn, err := dial(ctx, to)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", exchange.ErrConnect, err)
			}
			return conn, nil
		},
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: maxResponseHead,
	}}
}

// CloseIdle closes the connections that no request uses.
func (b *Back) CloseIdle() { b.transport.CloseIdleConnections() }

// RoundTrip sends r to the origin and returns its response head; the body
// follows. inform is called for each interim response, before RoundTrip
// returns. ctx bounds the whole exchange, body included, but not a tunnel. The
// error wraps [exchange.ErrConnect] if nothing was sent. It does not close
// r.Body, and may still read it after it has returned.
func (b *Back) RoundTrip(ctx context.Context, to netip.AddrPort, r *exchange.Request, inform func(status int, fields exchange.Fields)) (*exchange.Response, error) {
	interim := &interim{pass: inform}
	defer interim.stop()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: interim.got})

	header := make(http.Header, len(r.Fields)+3)
	addTo(header, r.Fields)
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = []string{""} // do not add one
	}
	switch {
	case r.Upgrade != "":
		header["Connection"], header["Upgrade"] = []string{"Upgrade"}, []string{r.Upgrade}
	case r.AcceptsTrailers:
		header["Connection"], header["Te"] = []string{"te"}, []string{"trailers"}
	}
	req := (&http.Request{
		Method: r.Method, URL: targetURL(to, r), Host: r.Authority, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if r.Body != nil {
		body := &upload{request: r}
		req.Body, req.ContentLength = body, r.Length
		if r.Trailers != nil && len(*r.Trailers) > 0 {
			req.Trailer = make(http.Header)
			for _, field := range *r.Trailers {
				if !exchange.TrailerAllowed(field.Name) {
					continue
				}
				req.Trailer[textproto.CanonicalMIMEHeaderKey(field.Name)] = nil
			}
			req.ContentLength = -1 // trailers need the chunked coding
			body.trailer = req.Trailer
		}
	}
	res, err := b.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return b.response(res)
}

func (b *Back) response(res *http.Response) (*exchange.Response, error) {
	out := &exchange.Response{Status: res.StatusCode, Fields: fieldsOf(res.Header), Length: res.ContentLength}
	if res.StatusCode == http.StatusSwitchingProtocols {
		conn, ok := res.Body.(io.ReadWriteCloser)
		if !ok {
			res.Body.Close()
			return nil, errors.New("101 without a connection")
		}
		out.Length, out.Tunnel = -1, &originTunnel{conn}
		return out, nil
	}
	if res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified {
		out.Length = -1
		return out, res.Body.Close()
	}
	trailers := fieldsOf(res.Trailer)
	out.Trailers = &trailers
	out.Body = &download{res: res, trailers: &trailers}
	return out, nil
}

// targetURL makes net/http send r.Path exactly as it is.
func targetURL(to netip.AddrPort, r *exchange.Request) *url.URL {
	u := &url.URL{Scheme: "http", Host: to.String()}
	if !strings.HasPrefix(r.Path, "//") {
		u.Opaque = r.Path
		return u
	}
	// An opaque part with two slashes would be taken for an authority.
	path, query, found := strings.Cut(r.Path, "?")
	u.RawQuery, u.ForceQuery = query, found
	u.Path, _ = url.PathUnescape(path)
	u.RawPath = path
	if u.EscapedPath() != path { // it holds bytes that no path should
		return &url.URL{Scheme: "http", Host: to.String(), Opaque: "http://" + cmp.Or(r.Authority, to.String()) + r.Path}
	}
	return u
}

// interim passes interim responses on, but none once RoundTrip has returned:
// net/http may still be reading one when its request is canceled.
type interim struct {
	mu      sync.Mutex
	stopped bool
	pass    func(int, exchange.Fields)
}

func (i *interim) got(status int, header textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.stopped && status != http.StatusContinue { // the front sends its own 100
		i.pass(status, fieldsOf(http.Header(header)))
	}
	return nil
}

func (i *interim) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stopped = true
}

// upload is a request's body on its way to one origin.
type upload struct {
	request *exchange.Request
	trailer http.Header
}

// Read implements [io.Reader].
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.request.Body.Read(p)
	if err == io.EOF {
		for name := range u.trailer {
			u.trailer[name] = nil
			for value := range u.request.Trailers.Values(name) {
				u.trailer[name] = append(u.trailer[name], value)
			}
		}
	}
	return n, err
}

// Close leaves the body open: another origin may be tried.
func (u *upload) Close() error { return nil }

// download is a response's body.
type download struct {
	res      *http.Response
	trailers *exchange.Fields
}

// Read implements [io.Reader].
func (d *download) Read(p []byte) (int, error) {
	n, err := d.res.Body.Read(p)
	if err == io.EOF {
		*d.trailers = fieldsOf(d.res.Trailer)
	}
	return n, err
}

// Close implements [io.Closer].
func (d *download) Close() error { return d.res.Body.Close() }

// originTunnel is an origin's connection after a 101.
type originTunnel struct{ io.ReadWriteCloser }

// CloseWrite implements [exchange.Tunnel].
func (t *originTunnel) CloseWrite() error {
	if c, ok := t.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		if err := c.CloseWrite(); !errors.Is(err, http.ErrNotSupported) {
			return err
		}
	}
	return t.Close()
}

func formatLength(n int64) string { return strconv.FormatInt(n, 10) }
