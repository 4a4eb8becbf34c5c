package edge

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"anyedge/test/lab/netns"
	"anyedge/test/lab/topology"
)

// sysctls of every machine. IPv6 addresses are there at once, without
// duplicate address detection, and survive a link that goes down.
var sysctls = []string{
	"ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0",
	"ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0",
	"ipv6/conf/all/keep_addr_on_down=1", "ipv6/conf/default/keep_addr_on_down=1",
}

var roleSysctls = map[topology.Role][]string{
	topology.CoreRouter: routing,
	topology.PopRouter:  routing,
	topology.Switch:     {"ipv6/conf/default/disable_ipv6=1"},
	// The others are a Load's.
	topology.ClientHost: {fmt.Sprintf("ipv4/ip_local_port_range=1024 %d", firstPort-1), "ipv4/tcp_tw_reuse=1"},
}

// routing forwards, and spreads connections over equal paths by ports as well
// as by addresses.
var routing = []string{
	"ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1",
	"ipv4/fib_multipath_hash_policy=1", "ipv6/fib_multipath_hash_policy=1",
}

// buildNetwork makes namespaces, links and addresses.
func (l *Lab) buildNetwork(ctx context.Context) error {
	var add []string
	for _, s := range l.spaces() {
		add = append(add, "netns add "+string(s))
	}
	if err := netns.Space("").IP(ctx, add...); err != nil {
		return err
	}
	for _, m := range l.Plan.Machines {
		if err := l.Space(m.Name).Sysctl(slices.Concat(sysctls, roleSysctls[m.Role])...); err != nil {
			return err
		}
	}
	var links []string
	for _, k := range l.Plan.Links {
		links = append(links, fmt.Sprintf("link add %s type veth peer %s", l.plug(k.A), l.plug(k.B)))
	}
	if err := netns.Space("").IP(ctx, links...); err != nil {
		return err
	}
	return l.each(l.Plan.Machines, func(m *topology.Machine) error { return l.Space(m.Name).IP(ctx, configure(m)...) })
}

func (l *Lab) plug(e topology.End) string {
	for _, i := range l.Plan.Machine(e.Machine).Interfaces {
		if i.Name == e.Interface {
			return fmt.Sprintf("name %s netns %s address %s", i.Name, l.Space(e.Machine), i.MAC)
		}
	}
	panic("edge: a link to an interface that is not there: " + e.String())
}

// configure are the lines that give a machine its addresses.
func configure(m *topology.Machine) []string {
	lines := []string{"link set dev lo up"}
	if m.Role == topology.Switch {
		lines = append(lines, "link add name bridge type bridge forward_delay 0 mcast_snooping 0", "link set dev bridge up")
	}
	for _, a := range m.Loopback {
		lines = append(lines, fmt.Sprintf("addr add %s dev lo", a))
	}
	for _, i := range m.Interfaces {
		for _, a := range i.Addresses {
			lines = append(lines, fmt.Sprintf("addr add %s dev %s", a, i.Name))
		}
		if m.Role == topology.Switch {
			lines = append(lines, fmt.Sprintf("link set dev %s master bridge", i.Name))
		}
		lines = append(lines, fmt.Sprintf("link set dev %s up", i.Name))
	}
	return append(lines, defaultRoutes(m)...)
}

// defaultRoutes do not survive a link that goes down.
func defaultRoutes(m *topology.Machine) []string {
	var lines []string
	for _, g := range m.Gateways {
		to := "0.0.0.0/0"
		if g.Is6() {
			to = "::/0"
		}
		lines = append(lines, fmt.Sprintf("route replace %s via %s", to, g))
	}
	return lines
}

// each does something for several machines side by side and joins the errors.
func (l *Lab) each(machines []*topology.Machine, do func(*topology.Machine) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []string
	for _, m := range machines {
		wg.Go(func() {
			if err := do(m); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, m.Name+": "+err.Error())
			}
		})
	}
	wg.Wait()
	if len(failed) == 0 {
		return nil
	}
	slices.Sort(failed)
	return fmt.Errorf("%s", strings.Join(failed, "\n"))
}
