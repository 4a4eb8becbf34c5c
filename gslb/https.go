package gslb

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Names of DNS over HTTPS, RFC 8484 sections 4.1 and 6.
const (
	dohPath = "/dns-query"
	dohType = "application/dns-message"
)

// serveHTTPS answers DNS over HTTPS (RFC 8484) in HTTP/1.1 and HTTP/2, until ctx
// is done.
func (s *Server) serveHTTPS(ctx context.Context, listener net.Listener, gate *gate, config *tls.Config) error {
	config = config.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	mux := http.NewServeMux()
	mux.HandleFunc(dohPath, s.answerHTTP)
	server := &http.Server{
		Handler:           mux,
		TLSConfig:         config,
		ReadTimeout:       s.cfg.IdleTimeout,
		WriteTimeout:      s.cfg.IdleTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    128 << 10, // a query of the greatest size in a URL, and room
		ReadHeaderTimeout: s.cfg.IdleTimeout,
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	err := server.ServeTLS(&gatedListener{listener, gate, s.m}, "", "")
	if !stop() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("gslb: https on %v: %w", listener.Addr(), err)
}

// answerHTTP answers one request.
func (s *Server) answerHTTP(w http.ResponseWriter, r *http.Request) {
	var msg []byte
	var err error
	switch r.Method {
	case http.MethodGet:
		query := r.URL.Query().Get("dns")
		if query == "" {
			http.Error(w, "no query: the parameter dns is missing", http.StatusBadRequest)
			return
		}
		if msg, err = base64.RawURLEncoding.DecodeString(query); err != nil {
			http.Error(w, "the parameter dns is not in base64url without padding", http.StatusBadRequest)
			return
		}
	case http.MethodPost:
		if r.Header.Get("Content-Type") != dohType {
			http.Error(w, "the content type is not "+dohType, http.StatusUnsupportedMediaType)
			return
		}
		if msg, err = io.ReadAll(io.LimitReader(r.Body, dns.MaxMsgSize+1)); err != nil {
			http.Error(w, "the query did not arrive", http.StatusBadRequest)
			return
		}
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "queries come by GET or POST", http.StatusMethodNotAllowed)
		return
	}
	if len(msg) > dns.MaxMsgSize {
		http.Error(w, "longer than a message can be", http.StatusRequestEntityTooLarge)
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, "no address to answer to", http.StatusInternalServerError)
		return
	}
	answer := s.answer(request{msg: msg, from: from.Addr().Unmap().WithZone(""), tcp: true, encrypted: true, http: true}, func([]byte) error { return errors.ErrUnsupported })
	if answer == nil {
		http.Error(w, "not a query", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", dohType)
	// Answers are for one client: it may keep them, caches between may not.
	w.Header().Set("Cache-Control", fmt.Sprintf("private, max-age=%d", lifetime(answer)))
	w.Write(answer) // a client that has gone needs none
}

// lifetime is how long an answer may be kept, in seconds: the least TTL in it,
// RFC 8484 section 5.1.
func lifetime(msg []byte) uint32 {
	var m dns.Msg
	if m.Unpack(msg) != nil || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0
	}
	records := slices.Concat(m.Answer, m.Ns)
	if len(records) == 0 {
		return 0
	}
	least := records[0].Header().Ttl
	for _, rr := range records {
		least = min(least, rr.Header().Ttl)
	}
	return least
}

// gatedListener gives connections for which the gate has room, and ends the
// others.
type gatedListener struct {
	net.Listener
	gate *gate
	m    *metrics
}

// Accept waits for the next connection that there is room for.
func (l *gatedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
		if !l.gate.enter(from) {
			l.m.dropped.WithLabelValues(dropConnection).Inc()
			conn.Close()
			continue
		}
		l.m.connections.Inc()
		return &gatedConn{Conn: conn, left: sync.OnceFunc(func() {
			l.gate.leave(from)
			l.m.connections.Dec()
		})}, nil
	}
}

// gatedConn makes room when it is closed.
type gatedConn struct {
	net.Conn
	left func()
}

// Close closes the connection.
func (c *gatedConn) Close() error {
	defer c.left()
	return c.Conn.Close()
}
