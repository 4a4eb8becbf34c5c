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
	"net/http"
	"net/netip"
	"slices"
	"time"

	"anyedge/origin/demo"
	"anyedge/test/lab/topology"
)

// client is what the lab's clients have in common.
type client struct {
	tls   *tls.Config
	nodes map[netip.Addr]*topology.Machine // by their own IPv4 address
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
	fail := func(s Stage, err error) (Answer, error) { return Answer{}, &StageError{s, err} }
	address := netip.AddrPortFrom(l.Plan.ServiceAddress(v6), topology.PortHTTPS)
	raw, err := l.Space(from).Dial(ctx, "tcp", address.String())
	if err != nil {
		return fail(Connect, err)
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := tls.Client(raw, l.client.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		return fail(Handshake, err)
	}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", l.Plan.Host()); err != nil {
		return fail(Response, err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return fail(Response, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", res.Status)
	}
	if err != nil {
		return fail(Response, err)
	}
	a, err := l.served(body)
	if err != nil {
		return fail(Response, err)
	}
	return a, nil
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
