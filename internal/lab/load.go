package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// load is a steady stream of requests through the anycast address, as its
// users send them: over kept HTTP/1.1 and HTTP/2 connections, and over new
// connections, in equal parts.
//
// A request counts as failed when it ends in an error, in a 5xx, or without
// its whole body. net/http repeats a GET that went out on a kept connection
// which the server had closed without answering, as RFC 9110 section 9.2.2
// allows a client to; such a request has not failed.
type load struct {
	rate    int // requests per second
	clients []*http.Client
	urls    []string

	sent, failed, inFlight atomic.Int64

	mu     sync.Mutex
	newest string // the newest failure in words
}

// requestTimeout bounds one request of the load, so that a stopped worker
// cannot hold it for ever.
const requestTimeout = 5 * time.Second

func newLoad(rate int, host string, l layout, roots *x509.CertPool) *load {
	secure := fmt.Sprintf("https://%s:%d/", host, portTLS)
	return &load{
		rate: rate,
		clients: []*http.Client{
			newClient(l, roots, "http/1.1", true),
			newClient(l, roots, "h2", true),
			newClient(l, roots, "http/1.1", false),
			newClient(l, roots, "http/1.1", false),
		},
		urls: []string{secure, secure, secure, fmt.Sprintf("http://%s:%d/", host, portClear)},
	}
}

// newClient returns a client that takes every name to the anycast address and
// speaks only the given protocol.
func newClient(l layout, roots *x509.CertPool, protocol string, keep bool) *http.Client {
	var d net.Dialer
	var p http.Protocols
	p.SetHTTP1(protocol == "http/1.1")
	p.SetHTTP2(protocol == "h2")
	return &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			Protocols:         &p,
			DisableKeepAlives: !keep,
			MaxIdleConns:      64, MaxIdleConnsPerHost: 64,
			TLSClientConfig: &tls.Config{RootCAs: roots},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				return d.DialContext(ctx, network, net.JoinHostPort(l.anycast(0).Addr().String(), port))
			},
		},
	}
}

func (l *load) String() string { return "load" }

// Run sends until ctx ends, then waits for what is under way. What a busy
// machine kept it from sending in time it sends as soon as it can: clients do
// not stay away because somebody's processor is busy.
func (l *load) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	start := time.Now()
	ticker := time.NewTicker(time.Second / time.Duration(l.rate))
	defer ticker.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for due := int(time.Since(start).Seconds() * float64(l.rate)); n < due; n++ {
			i := n % len(l.clients)
			wg.Go(func() { l.request(ctx, l.clients[i], l.urls[i]) })
		}
	}
}

func (l *load) request(ctx context.Context, c *http.Client, url string) {
	l.inFlight.Add(1)
	defer l.inFlight.Add(-1)
	_, err := get(ctx, c, url)
	if ctx.Err() != nil {
		return // cut off by the end of the load itself
	}
	l.sent.Add(1)
	if err != nil {
		l.failed.Add(1)
		l.note(err)
	}
}

// reconnect has the clients that keep connections make new ones, which go to
// the PoP that is the best now.
func (l *load) reconnect() {
	for _, c := range l.clients {
		c.CloseIdleConnections()
	}
}

// note keeps the newest failure for whoever asks why.
func (l *load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest = time.Now().Format("15:04:05.000 ") + err.Error()
}

// lastFailure is the newest failure in words.
func (l *load) lastFailure() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest
}

// reply is what came back for one request.
type reply struct {
	status int
	proto  string
	header http.Header
	body   []byte
}

// get fetches a URL whole.
func get(ctx context.Context, c *http.Client, url string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return reply{}, err
	}
	res, err := c.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	r := reply{res.StatusCode, res.Proto, res.Header, body}
	if err == nil && res.StatusCode >= 500 {
		err = errors.New(res.Status)
	}
	return r, err
}

// mark is a point in the load's count.
type mark struct{ sent, failed int64 }

func (l *load) mark() mark { return mark{l.sent.Load(), l.failed.Load()} }

// since returns the counts after m.
func (l *load) since(m mark) mark {
	now := l.mark()
	return mark{now.sent - m.sent, now.failed - m.failed}
}
