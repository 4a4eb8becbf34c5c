package edge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"anyedge/test/lab/netns"
	"anyedge/test/lab/topology"
)

// The events below play what happens to an edge. Each returns when it has
// happened; the time is right before that, for those who measure from it.

// signal sends a signal to what runs a subcommand of the product on a machine.
func (l *Lab) signal(machine, subcommand string, sig syscall.Signal) (time.Time, error) {
	found, err := l.find(machine, subcommand)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%s runs %d processes of %q, not one", machine, len(found), subcommand)
	}
	if err != nil {
		return time.Time{}, err
	}
	at := time.Now()
	return at, found[0].Signal(sig)
}

// HangWorker stops a node's worker in its tracks (SIGSTOP).
func (l *Lab) HangWorker(node string) (time.Time, error) {
	return l.signal(node, "proxy", syscall.SIGSTOP)
}

// KillWorker ends a node's worker (SIGKILL).
func (l *Lab) KillWorker(node string) (time.Time, error) {
	return l.signal(node, "proxy", syscall.SIGKILL)
}

// KillAgent ends a node's agent (SIGKILL). Nothing starts it again but
// [Lab.Start].
func (l *Lab) KillAgent(node string) (time.Time, error) {
	return l.signal(node, "pop", syscall.SIGKILL)
}

// Start starts what should run on a machine and does not.
func (l *Lab) Start(machine string) error {
	m := l.Plan.Machine(machine)
	if m == nil {
		return fmt.Errorf("there is no %s", machine)
	}
	running, err := netns.Processes(l.Space(machine))
	if err != nil {
		return err
	}
	if n := len(running[l.Space(machine)]); n > 0 {
		return fmt.Errorf("%s still runs %d processes", machine, n)
	}
	return l.start(m)
}

// PowerOff takes a machine from the network at once, with no time for a word to
// anybody, and then ends everything on it. On a PoP's LAN nobody else loses
// carrier.
func (l *Lab) PowerOff(ctx context.Context, machine string) (time.Time, error) {
	m := l.Plan.Machine(machine)
	if m == nil {
		return time.Time{}, fmt.Errorf("there is no %s", machine)
	}
	at := time.Now()
	if err := l.setLinks(ctx, m, "down"); err != nil {
		return at, err
	}
	return at, netns.Kill(ctx, l.Space(machine))
}

// PowerOn undoes PowerOff: the links are up again and everything is started.
func (l *Lab) PowerOn(ctx context.Context, machine string) error {
	m := l.Plan.Machine(machine)
	if m == nil {
		return fmt.Errorf("there is no %s", machine)
	}
	if err := l.setLinks(ctx, m, "up"); err != nil {
		return err
	}
	return l.Start(machine)
}

func (l *Lab) setLinks(ctx context.Context, m *topology.Machine, state string) error {
	var lines []string
	for _, i := range m.Interfaces {
		lines = append(lines, fmt.Sprintf("link set dev %s %s", i.Name, state))
	}
	if state == "up" {
		lines = append(lines, defaultRoutes(m)...)
	}
	return l.Space(m.Name).IP(ctx, lines...)
}

// SetLink takes one end of a cable down, or up again. The other end loses
// carrier.
func (l *Lab) SetLink(ctx context.Context, e topology.End, up bool) (time.Time, error) {
	m := l.Plan.Machine(e.Machine)
	if m == nil {
		return time.Time{}, fmt.Errorf("there is no %s", e.Machine)
	}
	at := time.Now()
	if !up {
		return at, l.Space(e.Machine).IP(ctx, fmt.Sprintf("link set dev %s down", e.Interface))
	}
	return at, l.Space(e.Machine).IP(ctx, append([]string{fmt.Sprintf("link set dev %s up", e.Interface)}, defaultRoutes(m)...)...)
}

// Lose has a cable silently lose all that this end sends, one way. Losing both
// ways takes both ends.
func (l *Lab) Lose(ctx context.Context, from topology.End) (time.Time, error) {
	to, ok := l.Plan.Peer(from)
	if !ok {
		return time.Time{}, fmt.Errorf("nothing is plugged in at %s", from)
	}
	at := time.Now()
	return at, l.Space(to.Machine).Drop(ctx, to.Interface)
}

// Mend undoes Lose.
func (l *Lab) Mend(ctx context.Context, from topology.End) error {
	to, ok := l.Plan.Peer(from)
	if !ok {
		return fmt.Errorf("nothing is plugged in at %s", from)
	}
	return l.Space(to.Machine).Accept(ctx, to.Interface)
}

// Refuse has a node answer everything to the service address of one family with
// a reset, as a firewall gone wrong would: the worker runs, and the agent's
// requests through that address fail.
func (l *Lab) Refuse(ctx context.Context, node string, v6 bool) (time.Time, error) {
	at := time.Now()
	return at, l.Space(node).Refuse(ctx, netip.AddrPortFrom(l.Plan.ServiceAddress(v6), topology.PortHTTPS))
}

// Admit undoes Refuse.
func (l *Lab) Admit(ctx context.Context, node string) error { return l.Space(node).Admit(ctx) }

// Drain asks, as an operator on a node would, for something to be taken out of
// service, with the arguments of "anyedge drain", such as "--pop", "fra".
func (l *Lab) Drain(ctx context.Context, node string, args ...string) (time.Time, error) {
	return l.operate(ctx, node, "drain", args)
}

// Undrain ends a drain.
func (l *Lab) Undrain(ctx context.Context, node string, args ...string) (time.Time, error) {
	return l.operate(ctx, node, "undrain", args)
}

func (l *Lab) operate(ctx context.Context, node, command string, args []string) (time.Time, error) {
	at := time.Now()
	_, err := l.Space(node).Run(ctx, append([]string{l.options.Binary, command}, args...)...)
	return at, err
}

// StopConsul stops Consul in its tracks: connections to it stand, and no answer
// comes. Its state is in memory and would not survive its end.
func (l *Lab) StopConsul() (time.Time, error) { return l.signalConsul(syscall.SIGSTOP) }

// ContinueConsul undoes StopConsul.
func (l *Lab) ContinueConsul() (time.Time, error) { return l.signalConsul(syscall.SIGCONT) }

func (l *Lab) signalConsul(sig syscall.Signal) (time.Time, error) {
	for _, m := range l.Plan.Of(topology.ConsulHost, "") {
		return l.signal(m.Name, "agent", sig)
	}
	return time.Time{}, errors.New("there is no Consul")
}

// FlapSessions ends every BGP session of a router, as "clear bgp *" does; the
// router opens them again.
func (l *Lab) FlapSessions(ctx context.Context, router string) (time.Time, error) {
	at := time.Now()
	return at, l.clearSessions(ctx, router)
}

// FlapSession ends the BGP session of a router with one node; the two open it
// again.
func (l *Lab) FlapSession(ctx context.Context, node string) (time.Time, error) {
	m := l.Plan.Machine(node)
	if m == nil || m.Role != topology.Node {
		return time.Time{}, fmt.Errorf("%s is no node", node)
	}
	at := time.Now()
	return at, l.clearSession(ctx, l.Plan.Router(m.Pop), m.Address(false))
}

// ParseEnd reads "machine/interface"; the interface may be left out where the
// machine has one only.
func (l *Lab) ParseEnd(s string) (topology.End, error) {
	machine, iface, given := strings.Cut(s, "/")
	m := l.Plan.Machine(machine)
	if m == nil {
		return topology.End{}, fmt.Errorf("there is no %q", machine)
	}
	if !given && len(m.Interfaces) == 1 {
		return m.Uplink(), nil
	}
	var names []string
	for _, i := range m.Interfaces {
		if i.Name == iface {
			return topology.End{Machine: machine, Interface: iface}, nil
		}
		names = append(names, i.Name)
	}
	return topology.End{}, fmt.Errorf("%s has no interface %q; there are %s", machine, iface, strings.Join(names, ", "))
}
