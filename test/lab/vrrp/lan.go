// Package vrrp plays failures of a small PoP in network namespaces: two nodes on
// a LAN keep the service addresses by VRRP, and a client asks for them all the
// time, over IPv4 and IPv6. A node runs the whole product or keepalived, the other
// the product.
//
// It needs root, and on the machine ip, the product, and Consul or keepalived;
// [Missing] says what is not there. Nothing is left after [LAN.Down], and Up
// takes away what a process that was killed left behind.
//
// # Concurrency
//
// One drill at a time, and one LAN at a time in all of the machine.
package vrrp

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
	"time"

	"anyedge/test/lab/edge"
	"anyedge/test/lab/netns"
)

// Daemon is what keeps the service addresses on a node.
type Daemon string

// The daemons.
const (
	Anyedge    Daemon = "anyedge"    // the product
	Keepalived Daemon = "keepalived" // with a server of its own behind it
)

// The machines of the LAN. The first node has the addresses while all is well.
const (
	first  = "a"
	second = "b"
	client = "c"
	centre = "lan" // the switch, with the origin and Consul
)

// Where things are on the LAN.
var (
	own4   = map[string]netip.Addr{first: addr("192.0.2.1"), second: addr("192.0.2.2"), client: addr("192.0.2.3"), centre: addr("192.0.2.4")}
	own6   = map[string]netip.Addr{first: addr("2001:db8::1"), second: addr("2001:db8::2"), client: addr("2001:db8::3"), centre: addr("2001:db8::4")}
	origin = netip.MustParseAddrPort("192.0.2.4:8080")
	consul = netip.MustParseAddrPort("192.0.2.4:8500")
	// services are the service addresses by family.
	services = map[Family]netip.AddrPort{
		IPv4: netip.MustParseAddrPort("192.0.2.100:80"),
		IPv6: netip.MustParseAddrPort("[2001:db8::100]:80"),
	}
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

const (
	prefix = "aevrrp-"
	folder = "/run/aevrrp"
	// patience bounds the wait for something that takes a second or three.
	patience = 20 * time.Second
)

// Options are what a LAN is made of.
type Options struct {
	// First runs on the node that has the addresses while all is well, Second on
	// the other. One of them at least is the product.
	First, Second Daemon
	// Binary is the product, Consul a Consul server; without two nodes of the
	// product that is not used. Both are files.
	Binary, Consul string
	// Log takes what happens. Nil throws it away.
	Log *slog.Logger
}

// LAN is a small PoP that is up.
type LAN struct {
	options Options
	log     *slog.Logger
	servers servers
	release func() // of the claim to be the only one
}

// Missing says in one error what this machine lacks, or returns nil.
func Missing(o Options) error {
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("not root"))
	}
	need := map[string]string{"ip": "iproute2", o.Binary: "make build"}
	if o.both() {
		need[o.Consul] = "make consul"
	} else {
		need[keepalived] = "Debian's keepalived"
	}
	for name, from := range need {
		if _, err := exec.LookPath(name); err != nil {
			errs = append(errs, fmt.Errorf("no %s (%s)", name, from))
		}
	}
	return errors.Join(errs...)
}

const keepalived = "/usr/sbin/keepalived"

// both reports whether both nodes run the product.
func (o Options) both() bool { return o.First == Anyedge && o.Second == Anyedge }

func (o Options) daemon(node string) Daemon {
	if node == first {
		return o.First
	}
	return o.Second
}

// Up brings a LAN up. It returns when the first node serves the client over both
// families and the second stands by. After an error Down is still due.
func Up(ctx context.Context, o Options) (*LAN, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &LAN{options: o, log: o.Log}
	var err error
	if l.release, err = edge.Claim(prefix); err != nil {
		return l, err
	}
	for _, file := range []*string{&l.options.Binary, &l.options.Consul} {
		abs, err := filepath.Abs(*file)
		if err != nil {
			return l, err
		}
		*file = abs
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"take the old LAN away", func(ctx context.Context) error {
			return errors.Join(netns.Remove(ctx, prefix), os.RemoveAll(folder))
		}},
		{"write the configs", l.writeFiles},
		{"build the network", l.buildNetwork},
		{"start what is around the nodes", l.startSurroundings},
		{"start the nodes", func(ctx context.Context) error { return errors.Join(l.start(ctx, first), l.start(ctx, second)) }},
		{"serve the client", l.Settled},
	} {
		start := time.Now()
		if err := step.do(ctx); err != nil {
			return l, fmt.Errorf("%s: %w", step.what, err)
		}
		l.log.Info("LAN step done", "step", step.what, "took", time.Since(start).Round(time.Millisecond))
	}
	return l, nil
}

// Down takes the LAN away, with all that runs on it.
func (l *LAN) Down(ctx context.Context) error {
	if l.release == nil {
		return nil // it is somebody else's
	}
	defer l.release()
	l.servers.close()
	return errors.Join(netns.Remove(ctx, prefix), os.RemoveAll(folder))
}

func space(machine string) netns.Space { return netns.Space(prefix + machine) }

func path(elem ...string) string { return filepath.Join(append([]string{folder}, elem...)...) }

//go:embed templates
var templates embed.FS

var parsed = template.Must(template.ParseFS(templates, "templates/*"))

// priorities of the nodes.
var priorities = map[string]int{first: 200, second: 100}

// writeFiles gives every node a folder with its config.
func (l *LAN) writeFiles(context.Context) error {
	sealing := make([]byte, 32)
	rand.Read(sealing)
	files := map[string][]byte{}
	for _, node := range []string{first, second} {
		if err := os.MkdirAll(path(node), 0o700); err != nil {
			return err
		}
		values := map[string]any{"Node": "lan-" + node, "Priority": priorities[node]}
		if l.options.both() {
			values["Consul"] = consul.String()
		}
		for _, name := range []string{"pop.yaml", "keepalived.conf"} {
			var out bytes.Buffer
			if err := parsed.ExecuteTemplate(&out, name, values); err != nil {
				return err
			}
			files[path(node, name)] = out.Bytes()
		}
		files[path(node, "fleet.key")] = []byte(base64.StdEncoding.EncodeToString(sealing) + "\n")
	}
	config, err := json.Marshal(map[string]any{
		"bind_addr": consul.Addr(), "client_addr": consul.Addr(),
		"ports":                map[string]int{"http": int(consul.Port()), "dns": -1, "grpc": -1, "grpc_tls": -1, "https": -1},
		"disable_update_check": true, "ui_config": map[string]bool{"enabled": false},
	})
	if err != nil {
		return err
	}
	files[path("consul.json")] = config
	for name, data := range files {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// buildNetwork makes namespaces and cables.
func (l *LAN) buildNetwork(ctx context.Context) error {
	var add, cables []string
	for _, m := range []string{first, second, client, centre} {
		add = append(add, "netns add "+string(space(m)))
		if m != centre {
			cables = append(cables, fmt.Sprintf("link add name eth0 netns %s type veth peer name to-%s netns %s", space(m), m, space(centre)))
		}
	}
	if err := netns.Space("").IP(ctx, add...); err != nil {
		return err
	}
	for _, m := range []string{first, second, client, centre} {
		err := space(m).Sysctl("ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0",
			"ipv6/conf/all/keep_addr_on_down=1", "ipv6/conf/default/keep_addr_on_down=1")
		if err != nil {
			return err
		}
	}
	if err := netns.Space("").IP(ctx, cables...); err != nil {
		return err
	}
	for _, m := range []string{centre, first, second, client} {
		dev := "eth0"
		lines := []string{"link set dev lo up"}
		if m == centre {
			dev = "br0"
			lines = append(lines, "link add name br0 type bridge forward_delay 0 mcast_snooping 0")
			for _, n := range []string{first, second, client} {
				lines = append(lines, "link set dev to-"+n+" master br0 up")
			}
		}
		lines = append(lines, "link set dev "+dev+" up",
			fmt.Sprintf("addr add %s/24 dev %s", own4[m], dev), fmt.Sprintf("addr add %s/64 dev %s nodad", own6[m], dev))
		if err := space(m).IP(ctx, lines...); err != nil {
			return err
		}
	}
	return nil
}
