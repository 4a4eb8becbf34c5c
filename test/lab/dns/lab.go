// Package dns is a DNS node at the end of a veth pair: it runs in a network
// namespace, a client is in another, and what the node answers in the driver goes
// the way it would go on a network card.
//
// It needs root, and on the machine ip, ethtool and the product; [Missing] says
// what is not there. Nothing is left after [Lab.Down], and Up takes away what a
// process that was killed left behind.
//
// # Concurrency
//
// One caller at a time, and one lab of a prefix at a time in all of the machine.
package dns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"anyedge/gslb/xdp"
	"anyedge/test/lab/netns"
)

// Interface is the node's, and the client's at the other end.
const (
	Interface       = "dns0"
	clientInterface = "dns1"
)

// Where the node and the client are.
var (
	Server4 = netip.MustParseAddr("198.18.53.1")
	Server6 = netip.MustParseAddr("fd53::1")
	Client4 = netip.MustParseAddr("198.18.53.2")
	client6 = netip.MustParseAddr("fd53::2")
)

// AdminPort is where the node's config has its admin API, at Server4.
const AdminPort = 15354

// Lab is a node and its client.
type Lab struct {
	Server, Client netns.Space
	dir            string // of gslb.yaml
	binary         string
	peer           io.Closer
	ended          <-chan struct{}
}

// Missing says what a lab lacks here.
func Missing(binary string) error {
	var errs []error
	if os.Getuid() != 0 {
		errs = append(errs, errors.New("root"))
	}
	for _, tool := range []string{"ip", "ethtool", binary} {
		if _, err := exec.LookPath(tool); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Up makes a lab whose namespaces have a prefix. dir has the node's gslb.yaml.
func Up(ctx context.Context, prefix, dir, binary string) (l *Lab, err error) {
	if binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	if err := netns.Remove(ctx, prefix); err != nil {
		return nil, err
	}
	l = &Lab{Server: netns.Space(prefix + "s"), Client: netns.Space(prefix + "c"), dir: dir, binary: binary}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Down(context.WithoutCancel(ctx)))
		}
	}()
	if err := netns.Space("").IP(ctx, "netns add "+string(l.Server), "netns add "+string(l.Client)); err != nil {
		return l, err
	}
	err = l.Server.IP(ctx,
		"link set lo up",
		fmt.Sprintf("link add %s type veth peer name %s netns %s", Interface, clientInterface, l.Client),
		fmt.Sprintf("address add %v/24 dev %s", Server4, Interface),
		fmt.Sprintf("address add %v/64 dev %s nodad", Server6, Interface),
		fmt.Sprintf("link set %s up", Interface))
	if err != nil {
		return l, err
	}
	err = l.Client.IP(ctx,
		"link set lo up",
		fmt.Sprintf("address add %v/24 dev %s", Client4, clientInterface),
		fmt.Sprintf("address add %v/64 dev %s nodad", client6, clientInterface),
		fmt.Sprintf("link set %s up", clientInterface))
	if err != nil {
		return l, err
	}
	// A checksum left to a device that does not exist would stay undone.
	for space, itf := range map[netns.Space]string{l.Server: Interface, l.Client: clientInterface} {
		if _, err := space.Run(ctx, "ethtool", "-K", itf, "tx", "off"); err != nil {
			return l, err
		}
	}
	return l, l.Client.Do(func() error {
		itf, err := net.InterfaceByName(clientInterface)
		if err != nil {
			return err
		}
		l.peer, err = xdp.PassThrough(itf)
		return err
	})
}

// Down takes everything away.
func (l *Lab) Down(ctx context.Context) error {
	if l.peer != nil {
		l.peer.Close()
	}
	return errors.Join(netns.Remove(ctx, string(l.Server)), netns.Remove(ctx, string(l.Client)))
}

// Start starts the node.
func (l *Lab) Start() (err error) {
	l.ended, err = l.Server.Start(l.dir, filepath.Join(l.dir, "log"), l.binary, "gslb", "--config", filepath.Join(l.dir, "gslb.yaml"))
	return err
}

// Ended is closed when the node has ended.
func (l *Lab) Ended() <-chan struct{} { return l.ended }

// Process returns the running node.
func (l *Lab) Process() (netns.Process, error) {
	found, err := l.Server.Find(func(p netns.Process) bool { return len(p.Args) > 1 && p.Args[1] == "gslb" })
	if err != nil || len(found) != 1 {
		return netns.Process{}, fmt.Errorf("%d nodes run: %w", len(found), errors.Join(err))
	}
	return found[0], nil
}

// Metrics returns the node's metrics, by name and labels as they are written.
func (l *Lab) Metrics(ctx context.Context) (map[string]float64, error) {
	transport := &http.Transport{DialContext: l.Server.Dial}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+netip.AddrPortFrom(Server4, AdminPort).String()+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	all := make(map[string]float64)
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if at := strings.LastIndexByte(lines.Text(), ' '); at > 0 {
			if v, err := strconv.ParseFloat(lines.Text()[at+1:], 64); err == nil {
				all[lines.Text()[:at]] = v
			}
		}
	}
	return all, lines.Err()
}

// Outcomes is the metric of how many queries had an outcome in the driver.
func Outcomes(outcome string) string {
	return fmt.Sprintf("anyedge_dns_xdp_queries_total{outcome=%q}", outcome)
}

// Await asks again and again until ok, for a while.
func Await(ctx context.Context, patience time.Duration, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
