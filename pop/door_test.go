package pop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"anyedge/configs"
	"anyedge/pop/proxy"
)

// Addresses of nobody's, for documentation (RFC 5737, RFC 3849).
var elsewhere = []string{"203.0.113.77", "2001:db8:ffff::77"}

// hasFamily skips a test where the family of an address is not there.
func hasFamily(t *testing.T, a netip.Addr) {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(loopbackOf(netip.AddrPortFrom(a, 1)).Addr(), 0).String())
	if err != nil {
		t.Skip("no loopback of this family: ", err)
	}
	l.Close()
}

// A worker whose service address is on another host is proven to serve, and is
// found out when it stops.
func TestProbeOfAnAddressThatIsElsewhere(t *testing.T) {
	for _, address := range elsewhere {
		t.Run(address, func(t *testing.T) {
			hasFamily(t, netip.MustParseAddr(address))
			service := netip.AddrPortFrom(netip.MustParseAddr(address), 8080)
			cfg := parse(t, fmt.Sprintf(`
node: {name: osl-1, pop: osl}
fleet: {memory: true}
listeners: [{name: web, address: "%s", clear: true}]
routes: [{pool: api}]
pools: [{name: api, backends: [{address: "127.0.0.1:9000"}]}]
health: {probe_interval: 10ms, probe_timeout: 5s}
`, service))
			if _, err := bind(t.Context(), cfg.Listeners, nil); !errors.Is(err, unix.EADDRNOTAVAIL) {
				t.Errorf("bound as an address that is always here: %v", err)
			}
			before := openSockets(t)
			set, err := bind(t.Context(), cfg.Listeners, nil, service.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				set.closeExcept(nil)
				if got := openSockets(t) - before; got != 0 {
					t.Errorf("%d sockets left open", got)
				}
			}()
			stop := startWorker(t, cfg, set)
			defer stop()

			l := cfg.Listeners[0]
			door := set.door(l)
			if !door.Addr().IsLoopback() || door.Port() == 0 {
				t.Fatalf("door at %s", door)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			results := make(chan probeResult)
			go probe(ctx, l, door, cfg.Health, "token", results)
			if r := <-results; !r.ok {
				t.Fatalf("%+v", r)
			}
			stop()
			for r := range results { // one may have been on its way
				if !r.ok {
					break
				}
			}
		})
	}
}

// startWorker runs a worker on sockets, as a process of its own would.
func startWorker(t *testing.T, cfg *configs.Pop, set *sockets) (stop func()) {
	t.Helper()
	w := proxy.New(quiet, nil)
	names, files, err := set.list()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFiles(files)
	for i, n := range names {
		l, err := net.FileListener(files[i])
		if err != nil {
			t.Fatal(err)
		}
		if n.Network == proxy.Door {
			w.AddDoor(n.Name, n.Address, l)
		} else {
			w.AddSocket(n.Name, l)
		}
	}
	s := buildSnapshot(cfg, &material{}, nil, nil)
	s.ProbeToken = "token"
	if err := w.Apply(s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stopped := false
	return func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			// The sockets of this process still queue what no worker takes.
			set.closeExcept(nil)
			set.open = nil
		}
	}
}

// While the address is here, probes go to it and not to the door.
func TestEntrance(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "::1"} {
		t.Run(address, func(t *testing.T) {
			hasFamily(t, netip.MustParseAddr(address))
			var at [2]netip.AddrPort
			for i := range at {
				l, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(address), 0).String())
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				at[i] = l.Addr().(*net.TCPAddr).AddrPort()
			}
			other := netip.AddrPortFrom(netip.MustParseAddr(elsewhere[0]), 80)
			if at[0].Addr().Is6() {
				other = netip.AddrPortFrom(netip.MustParseAddr(elsewhere[1]), 80)
			}
			for _, c := range []struct {
				what string
				e    entrance
				want netip.AddrPort
			}{
				{"no door", entrance{service: at[0]}, at[0]},
				{"here", entrance{service: at[0], door: at[1]}, at[0]},
				{"elsewhere", entrance{service: other, door: at[1]}, at[1]},
			} {
				conn, err := c.e.dial(t.Context(), "tcp", "ignored:1")
				if err != nil {
					t.Errorf("%s: %v", c.what, err)
					continue
				}
				if got := conn.RemoteAddr().(*net.TCPAddr).AddrPort(); got != c.want {
					t.Errorf("%s: connected to %s, want %s", c.what, got, c.want)
				}
				conn.Close()
			}
		})
	}
}

// Both sockets of HTTP/3 are bound, and the door beside them.
func TestBindVirtualHTTP3(t *testing.T) {
	service := netip.AddrPortFrom(netip.MustParseAddr(elsewhere[0]), 8443)
	set, err := bind(t.Context(), []configs.Listener{{Name: "web", Address: service, Protocols: []string{"h2", "h3"}}}, nil, service.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer set.closeExcept(nil)
	for _, network := range []string{"tcp", "udp", proxy.Door} {
		if set.held(socketKey{"web", network, service}) == nil {
			t.Errorf("no %s socket", network)
		}
	}
	names, files, err := set.list()
	if err != nil || len(names) != 3 {
		t.Errorf("%v, %v", names, err)
	}
	closeFiles(files)
}
