package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"anyedge/origin/demo"
	"anyedge/test/lab/topology"
)

// client is what the lab's clients have in common.
type client struct {
	tls   *tls.Config
	nodes map[netip.Addr]*topology.Machine // by their own IPv4 address
	ports atomic.Uint32                    // counts those given out
}

// firstPort is the first of those that a [Load] connects from; those below are
// the kernel's to choose.
const firstPort = 10000

// nextPort goes around all ports, which takes longer than the minute for which
// a server remembers a connection that it closed. A port that came back sooner
// would meet that memory at a PoP that the client has come back to, which
// answers a connection that it does not have with an old number and not with
// a reset.
func (c *client) nextPort() uint16 {
	return uint16(firstPort + c.ports.Add(1)%(1<<16-firstPort))
}

func newClient(l *Lab, authority []byte) (*client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New("the lab's authority has no certificate")
	}
	c := &client{
		tls:   &tls.Config{RootCAs: roots, ServerName: l.Plan.Host(), NextProtos: []string{"http/1.1"}},
		nodes: make(map[netip.Addr]*topology.Machine),
	}
	for _, n := range l.Plan.Of(topology.Node, "") {
		c.nodes[n.Address(false)] = n
	}
	return c, nil
}

// Answer says who served a request.
type Answer struct {
	// Pop, Node and Origin served it. The node is the one whose address the
	// origin saw.
	Pop, Node, Origin string
}

// Stage is how far a request came.
type Stage string

// The stages of a request over a new connection.
const (
	Connect   Stage = "connect"
	Handshake Stage = "handshake"
	Response  Stage = "response"
)

// StageError is the failure of a request.
type StageError struct {
	Stage Stage
	Err   error
}

func (e *StageError) Error() string { return string(e.Stage) + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *StageError) Unwrap() error { return e.Err }

// Fetch sends one request from a client to the service address, over a new TLS
// connection, and reads the whole response. What is not a 200 from an origin
// through a node is an error. All errors are a [*StageError].
func (l *Lab) Fetch(ctx context.Context, from string, v6 bool) (Answer, error) {
	c, err := l.connect(ctx, from, v6, 0)
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	return c.get(ctx, false)
}

// connection is a client's TLS connection to the service address.
type connection struct {
	*tls.Conn
	lab    *Lab
	raw    net.Conn
	read   *bufio.Reader
	opened time.Time // when it began to connect
	last   bool      // the server wants no request after this one
}

// connect opens a connection, from a port unless that is 0.
func (l *Lab) connect(ctx context.Context, from string, v6 bool, port uint16) (*connection, error) {
	c := &connection{lab: l, opened: time.Now()}
	address := netip.AddrPortFrom(l.Plan.ServiceAddress(v6), topology.PortHTTPS)
	var err error
	if c.raw, err = l.Space(from).DialFrom(ctx, port, address); err != nil {
		return nil, &StageError{Connect, err}
	}
	c.Conn = tls.Client(c.raw, l.client.tls)
	c.read = bufio.NewReader(c.Conn)
	if err := c.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, &StageError{Handshake, err}
	}
	return c, nil
}

// connectFrom opens a connection from the next port.
func (l *Lab) connectFrom(ctx context.Context, from string, v6 bool) (*connection, error) {
	for {
		c, err := l.connect(ctx, from, v6, l.client.nextPort())
		if !errors.Is(err, syscall.EADDRINUSE) {
			return c, err
		}
	}
}

// Close ends the connection without a word of TLS: nobody waits for one.
func (c *connection) Close() { c.raw.Close() }

// get sends a request and reads the response.
func (c *connection) get(ctx context.Context, keep bool) (Answer, error) {
	a, err := c.exchange(ctx, keep)
	if err != nil {
		return Answer{}, &StageError{Response, err}
	}
	return a, nil
}

func (c *connection) exchange(ctx context.Context, keep bool) (Answer, error) {
	stop := context.AfterFunc(ctx, func() { c.raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	option := "close"
	if keep {
		option = "keep-alive"
	}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n\r\n", c.lab.Plan.Host(), option); err != nil {
		return Answer{}, err
	}
	res, err := http.ReadResponse(c.read, nil)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return Answer{}, err
	}
	if res.StatusCode != http.StatusOK {
		return Answer{}, fmt.Errorf("status %s", res.Status)
	}
	if keep && res.Close {
		c.last = true
	}
	return c.lab.served(body)
}

// served reads who served from what the demo origin says it received.
func (l *Lab) served(body []byte) (Answer, error) {
	var seen demo.Received
	if err := json.Unmarshal(body, &seen); err != nil {
		return Answer{}, err
	}
	origin := l.Plan.Machine(seen.Origin.Name)
	via, err := netip.ParseAddrPort(seen.RemoteAddress)
	if err != nil || origin == nil {
		return Answer{}, fmt.Errorf("origin %q was reached from %q", seen.Origin.Name, seen.RemoteAddress)
	}
	node := l.client.nodes[via.Addr()]
	if node == nil {
		return Answer{}, fmt.Errorf("origin %s was reached from %s, which is no node", origin.Name, via)
	}
	if node.Pop != origin.Pop {
		return Answer{}, fmt.Errorf("node %s used origin %s of another PoP", node.Name, origin.Name)
	}
	return Answer{node.Pop, node.Name, origin.Name}, nil
}

// fetchTimeout bounds one request of those that are repeated until they succeed.
const fetchTimeout = time.Second

// AwaitServed sends requests until one is served by one of the PoPs.
func (l *Lab) AwaitServed(ctx context.Context, from string, v6 bool, limit time.Duration, pops ...string) (a Answer, err error) {
	what := fmt.Sprintf("%s is served by %v (IPv6 %v)", from, pops, v6)
	err = l.Eventually(ctx, what, limit, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		var err error
		if a, err = l.Fetch(ctx, from, v6); err == nil && !slices.Contains(pops, a.Pop) {
			err = fmt.Errorf("served by %s", a.Pop)
		}
		return err
	})
	return a, err
}
