package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// served asks through the anycast address for one kind of client of the load,
// and checks that an origin of the best PoP answered.
func (l *Lab) served(ctx context.Context, client int, proto string) (string, error) {
	r, err := get(ctx, l.load.clients[client], l.load.urls[client])
	if err != nil {
		return "", err
	}
	origin := r.header.Get(originField)
	switch {
	case r.status != http.StatusOK:
		return "", fmt.Errorf("status %d", r.status)
	case r.proto != proto:
		return "", fmt.Errorf("served over %s", r.proto)
	case !strings.HasPrefix(origin, l.first().Name+"-"):
		return "", fmt.Errorf("served by %q, want an origin of %s, the best PoP", origin, l.first().Name)
	}
	return fmt.Sprintf("by %s over %s", origin, r.proto), nil
}

// originField is the response field in which a demo origin says who it is.
const originField = "Origin-Name"

// oneSession keeps the first session that it is given, so that every later
// handshake offers that very ticket.
type oneSession struct{ first *tls.ClientSessionState }

func (s *oneSession) Put(_ string, cs *tls.ClientSessionState) {
	if s.first == nil {
		s.first = cs
	}
}

func (s *oneSession) Get(string) (*tls.ClientSessionState, bool) { return s.first, s.first != nil }

// resumes makes a session at the first PoP and resumes it at all the others.
func (l *Lab) resumes(ctx context.Context) (string, error) {
	cache := new(oneSession)
	var seen []string
	for i, p := range l.cfg.Pops {
		resumed, err := l.handshake(ctx, l.layout.pop(i), cache)
		switch {
		case err != nil:
			return "", fmt.Errorf("%s: %w", p.Name, err)
		case resumed != (i > 0):
			return "", fmt.Errorf("%s: resumed is %v", p.Name, resumed)
		case i > 0:
			seen = append(seen, p.Name)
		}
	}
	return fmt.Sprintf("ticket of %s resumed at %s", l.first().Name, strings.Join(seen, ", ")), nil
}

// handshake connects to one PoP and reads a response, after which the server's
// ticket has arrived.
func (l *Lab) handshake(ctx context.Context, pop netip.Addr, cache tls.ClientSessionCache) (resumed bool, err error) {
	d := tls.Dialer{Config: &tls.Config{RootCAs: l.secrets.roots, ServerName: l.host(), ClientSessionCache: cache}}
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(pop, portTLS).String())
	if err != nil {
		return false, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(requestTimeout))
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", l.host()); err != nil {
		return false, err
	}
	var head [12]byte
	if _, err := c.Read(head[:]); err != nil {
		return false, err
	}
	if !bytes.HasPrefix(head[:], []byte("HTTP/1.1 200")) {
		return false, fmt.Errorf("answered %q", head)
	}
	return c.(*tls.Conn).ConnectionState().DidResume, nil
}
