package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Dial returns a connection to the backend at address: a warm one that is still
// alive, or else a new one. It need not be in the set: a backend may be removed
// between its pick and its dial. The connection is a *[net.TCPConn], or with TLS
// a *[tls.Conn] after its handshake, whose state tells the protocol agreed on.
// The caller owns it.
func (p *Pool) Dial(ctx context.Context, address netip.AddrPort) (net.Conn, error) {
	cfg := p.config.Load()
	m := p.current.Load().members[unmap(address)]
	if m == nil {
		return connect(ctx, address, cfg)
	}
	if conn := m.warm.take(time.Now()); conn != nil {
		m.dialsWarm.Add(1)
		return conn, nil
	}
	conn, err := connect(ctx, address, cfg)
	if err != nil {
		if ctx.Err() == nil { // a caller that gave up says nothing of the backend
			m.dialsFailed.Add(1)
		}
		return nil, err
	}
	m.dialsNew.Add(1)
	return conn, nil
}

// connect makes a new connection within the connect timeout.
func connect(ctx context.Context, address netip.AddrPort, cfg *Config) (net.Conn, error) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	conn, err := handshake(ctx, address, cfg.TLS)
	if err != nil && whole.Err() == nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("connect to %s: nothing within %s: %w", address, cfg.ConnectTimeout, err)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return conn, nil
}

func handshake(ctx context.Context, address netip.AddrPort, config *tls.Config) (net.Conn, error) {
	tcp, err := dialTCP(ctx, address)
	if err != nil {
		return nil, err
	}
	if config == nil {
		return tcp, nil
	}
	secure := tls.Client(tcp, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		tcp.Close()
		return nil, err
	}
	return secure, nil
}

func dialTCP(ctx context.Context, address netip.AddrPort) (*net.TCPConn, error) {
	var d net.Dialer
	return d.DialTCP(ctx, "tcp", netip.AddrPort{}, address)
}
