package soak

import (
	"context"
	"net"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// h3Session is a connection of HTTP/3, on a socket of its own.
type h3Session struct {
	*http3.ClientConn
	packets   *net.UDPConn
	transport *quic.Transport
	conn      *quic.Conn
	client    *http3.Transport
}

func (f *front) openH3(ctx context.Context, e *edge) (session, error) {
	packets, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	s := &h3Session{packets: packets, transport: &quic.Transport{Conn: packets}, client: &http3.Transport{DisableCompression: true}}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.conn, err = s.transport.Dial(ctx, net.UDPAddrFromAddrPort(e.addresses[f.listener]), f.trust(e), &quic.Config{MaxIdleTimeout: patience})
	if err != nil {
		s.transport.Close()
		packets.Close()
		return nil, err
	}
	s.ClientConn = s.client.NewClientConn(s.conn)
	return s, nil
}

func (s *h3Session) usable() bool { return s.conn.Context().Err() == nil }

func (s *h3Session) name() string { return s.packets.LocalAddr().String() }

// end ends the connection; with reset, without telling the server.
func (s *h3Session) end(reset bool) {
	if reset {
		s.packets.Close()
	}
	s.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	s.transport.Close()
	s.packets.Close()
}
