// Package demo is the origin server of the lab, of tests and of "anyedge
// origin": it shows what reached it and misbehaves on request.
//
//	/                   the request as it was received, in JSON
//	/whoami             who this origin is, in JSON
//	/slow?ms=N          waits N milliseconds, then as /whoami
//	/bytes?n=N          N bytes of [Content]
//	/status?code=N      an empty response with this status
//	/healthz            200, or 503 while switched down
//	/healthz?state=S    POST switches health to up or down
//	/ws                 WebSocket: echoes messages (RFC 6455)
//	/echo.proto         the gRPC service, which listens on the same port
//
// Any other path is as "/". Every response names the origin in [NameField].
// HTTP/1.1 and HTTP/2 are served on one port, HTTP/2 in clear text by prior
// knowledge (RFC 9113 Section 3.3) or by ALPN under TLS.
//
// It is a plain net/http server on purpose: what is measured or tested through
// the edge must not share code with it. The server bounds what one request may
// cost, but anybody who reaches it may switch its health: it is no server for a
// public network.
//
// # Concurrency
//
// All methods of [Server] may be called by several goroutines at once.
package demo

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// NameField is the response field, or gRPC header metadata, with the origin's
// name.
const NameField = "Origin-Name"

const (
	// headerTimeout also bounds how long a connection may be open before its
	// first request, so it is long enough for a proxy's warm connections.
	headerTimeout = 60 * time.Second
	idleTimeout   = 120 * time.Second
)

// Server is a demo origin. The zero value works; fields must not change once a
// method was called. Each Server is run once.
type Server struct {
	// Name and Region say who this origin is.
	Name   string
	Region string
	// Address is what Run listens on.
	Address netip.AddrPort
	// TLS serves TLS; it holds the certificates. nil: clear text.
	TLS *tls.Config
	// DrainTimeout bounds how long requests may go on when the server ends.
	// Default 10s.
	DrainTimeout time.Duration
	// Log is for starts, stops and broken connections. nil: silence.
	Log *slog.Logger

	down    atomic.Bool
	sockets sockets
}

// Identity is how an origin names itself in JSON.
type Identity struct {
	Name   string `json:"name"`
	Region string `json:"region"`
}

// SetHealthy switches what /healthz answers. A new server is healthy.
func (s *Server) SetHealthy(healthy bool) { s.down.Store(!healthy) }

// Healthy returns what /healthz answers.
func (s *Server) Healthy() bool { return !s.down.Load() }

// Run listens on Address and serves until ctx ends, as [Server.Serve] does.
func (s *Server) Run(ctx context.Context) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(s.Address))
	if err != nil {
		return fmt.Errorf("demo origin: %w", err)
	}
	return s.Serve(ctx, l)
}

// Serve serves connections of l until ctx ends, then lets requests in flight
// finish within the drain timeout, and returns nil. WebSockets are closed with
// status 1001 (RFC 6455 Section 7.4.1). It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	log := s.logger().With("name", s.Name, "address", l.Addr().String())
	handler := newHandler(s)
	defer handler.grpc.Stop()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:           handler,
		Protocols:         &protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	server.RegisterOnShutdown(s.sockets.leave)

	served := make(chan error, 1)
	go func() {
		if s.TLS == nil {
			served <- server.Serve(l)
			return
		}
		server.TLSConfig = s.TLS.Clone()
		served <- server.ServeTLS(l, "", "")
	}()
	log.Info("demo origin serves")
	select {
	case err := <-served:
		server.Close()
		s.sockets.leave()
		s.sockets.open.Wait()
		return fmt.Errorf("demo origin: %w", err)
	case <-ctx.Done():
	}

	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(s.DrainTimeout, 10*time.Second))
	defer cancel()
	if err := server.Shutdown(patience); err != nil {
		log.Info("demo origin cut requests off", "error", err)
		server.Close()
	}
	s.sockets.leave()
	s.sockets.open.Wait()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("demo origin: %w", err)
	}
	log.Info("demo origin ended")
	return nil
}

// Handler returns the server's endpoints for another HTTP server, gRPC included
// if that server speaks HTTP/2.
func (s *Server) Handler() http.Handler { return newHandler(s) }

func (s *Server) logger() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// handler is the endpoints over HTTP and gRPC.
type handler struct {
	server *Server
	grpc   *grpc.Server
}
