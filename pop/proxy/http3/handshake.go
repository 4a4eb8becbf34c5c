package http3

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"anyedge/pop/proxy/exchange"
)

var errNotAdmitted = errors.New("not admitted")

// peer is a client from its first packet on.
type peer struct {
	front   *Front
	config  *FrontConfig
	release func()
	shaken  atomic.Bool // the handshake is over

	// What the handshake has brought to light before it is complete; set before
	// the connection is accepted.
	serverName string
	cipher     uint16
}

type peerKey struct{}

// admit decides about a client's first packet. ctx ends when the connection
// that is made of it is gone, and the peer is counted in peers until then.
func (f *Front) admit(ctx context.Context, info *quic.ClientInfo, peers *sync.WaitGroup) (context.Context, error) {
	f.mu.Lock()
	closing := f.closing
	f.mu.Unlock()
	p := &peer{front: f, config: f.config.Load()}
	admitted := !closing
	if admitted {
		p.release, admitted = p.config.Admit(addrPort(info.RemoteAddr).Addr())
	}
	if !admitted {
		f.metrics.refusals.Inc()
		return nil, errNotAdmitted
	}
	f.handshaking.Add(1)
	peers.Add(1)
	context.AfterFunc(ctx, func() {
		defer peers.Done()
		p.handshakeOver(handshakeFailed)
		p.release()
	})
	return context.WithValue(ctx, peerKey{}, p), nil
}

// handshakeOver notes how the handshake has ended, unless that is known.
func (p *peer) handshakeOver(result string) {
	if !p.shaken.Swap(true) {
		p.front.handshaking.Add(-1)
		p.front.metrics.handshakes.WithLabelValues(result).Inc()
	}
}

// tlsConfig returns a config that gets each connection one of its own.
func (f *Front) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			p, _ := hello.Context().Value(peerKey{}).(*peer)
			if p == nil {
				return nil, errNotAdmitted
			}
			p.serverName = hello.ServerName
			return p.tlsConfig(p.config.TLS()), nil
		},
	}
}

// tlsConfig returns base as this client is to meet it.
func (p *peer) tlsConfig(base *tls.Config) *tls.Config {
	wrap, unwrap := base.WrapSession, base.UnwrapSession
	if wrap == nil {
		wrap = base.EncryptTicket
	}
	if unwrap == nil {
		unwrap = base.DecryptTicket
	}
	limit := uint64(p.config.MaxHeaderBytes)
	cfg := base.Clone()
	cfg.MinVersion = tls.VersionTLS13
	cfg.NextProtos = []string{"h3"}
	cfg.WrapSession = func(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, binary.BigEndian.AppendUint64([]byte(settingsPrefix), limit))
		return wrap(cs, session)
	}
	cfg.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		session, err := unwrap(ticket, cs)
		if session != nil {
			p.cipher = cs.CipherSuite
			session.EarlyData = session.EarlyData && limit >= remembered(session.Extra)
		}
		return session, err
	}
	return cfg
}

// settingsPrefix marks what we keep in a session for the next connection: the
// limit on heads, which the client remembers too and relies on in its early
// data (RFC 9114, 7.2.4.2). quic-go does the same for QUIC's own limits.
const settingsPrefix = "anyedge h3 settings 1 "

// remembered returns the limit on heads that a session was made under. Without
// one, none is high enough.
func remembered(extra [][]byte) uint64 {
	i := slices.IndexFunc(extra, func(b []byte) bool { return bytes.HasPrefix(b, []byte(settingsPrefix)) })
	if i < 0 || len(extra[i]) != len(settingsPrefix)+8 {
		return 1<<64 - 1
	}
	return binary.BigEndian.Uint64(extra[i][len(settingsPrefix):])
}

// awaitHandshake notes how the handshake ends.
func (c *conn) awaitHandshake() {
	select {
	case <-c.qc.Context().Done():
		return
	case <-c.qc.HandshakeComplete():
	}
	state, result := c.qc.ConnectionState(), handshakeFull
	switch {
	case state.Used0RTT:
		result = handshakeEarly
	case state.TLS.DidResume:
		result = handshakeResumed
	}
	c.peer.handshakeOver(result)
}

// complete reports whether the handshake is.
func (c *conn) complete() bool {
	select {
	case <-c.qc.HandshakeComplete():
		return true
	default:
		return false
	}
}

// describe returns what is known of the connection.
func (c *conn) describe() *exchange.Conn {
	info := &exchange.Conn{
		Client: addrPort(c.qc.RemoteAddr()),
		Local:  addrPort(c.qc.LocalAddr()),
		// quic-go's ConnectionState waits for the end of the handshake. Whoever
		// sends a request before it is resuming a session.
		TLS: &exchange.TLS{
			Version: tls.VersionName(tls.VersionTLS13), Cipher: tls.CipherSuiteName(c.peer.cipher),
			ServerName: c.peer.serverName, Resumed: true,
		},
	}
	if c.complete() {
		state := c.qc.ConnectionState().TLS
		info.TLS.Cipher, info.TLS.Resumed = tls.CipherSuiteName(state.CipherSuite), state.DidResume
	}
	return info
}

// addrPort returns a UDP address with IPv4 in its own form.
func addrPort(a net.Addr) netip.AddrPort {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := udp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
