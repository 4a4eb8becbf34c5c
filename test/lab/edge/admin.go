package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"anyedge/bgp/bfd"
	"anyedge/bgp/shield"
	"anyedge/pop"
	"anyedge/test/lab/topology"
)

// adminTimeout bounds one question to a node.
const adminTimeout = 2 * time.Second

// Status is what a node says of itself.
func (l *Lab) Status(ctx context.Context, node string) (s pop.Status, err error) {
	err = l.admin(ctx, node, "/v1/status", &s)
	return s, err
}

// Routes is what a node says it announces, and to whom.
func (l *Lab) Routes(ctx context.Context, node string) (r pop.Routes, err error) {
	err = l.admin(ctx, node, "/v1/routes", &r)
	return r, err
}

func (l *Lab) admin(ctx context.Context, node, path string, out any) error {
	return l.get(ctx, node, fmt.Sprintf("http://127.0.0.1:%d%s", topology.PortAdmin, path), out)
}

// get fetches JSON from a machine's point of view.
func (l *Lab) get(ctx context.Context, machine, url string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return l.Space(machine).Dial(ctx, network, address)
		},
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, res.Status, body)
	}
	return json.Unmarshal(body, out)
}

// announces is nil while a node announces, every session of it is Established,
// and BFD is Up with every neighbor, if it is spoken.
func (l *Lab) announces(ctx context.Context, node string) error {
	r, err := l.Routes(ctx, node)
	if err != nil {
		return fmt.Errorf("%w; its output: %s", err, l.tail(node, "pop"))
	}
	if r.Announcement.State != pop.Announced {
		return fmt.Errorf("%s: %s", r.Announcement.State, r.Announcement.Reason)
	}
	for _, n := range r.BGP.Neighbors {
		if n.State != shield.Established {
			return fmt.Errorf("neighbor %s is %s: %s", n.Address, n.State, n.LastError)
		}
	}
	if want := len(r.BGP.Neighbors); l.Plan.BFD.On() && len(r.BFD) != want {
		return fmt.Errorf("%d neighbors and %d BFD sessions", want, len(r.BFD))
	}
	for _, b := range r.BFD {
		if b.State != bfd.Up {
			return fmt.Errorf("BFD with %s is %s", b.Peer, b.State)
		}
	}
	return nil
}
