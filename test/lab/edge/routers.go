package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"anyedge/test/lab/topology"
)

const birdSocket = "bird.ctl"

// Ask puts a command to the routing daemon of a router, in its own language, and
// returns the answer: with FRR what vtysh takes, with BIRD what birdc takes.
func (l *Lab) Ask(ctx context.Context, router, command string) (string, error) {
	m := l.Plan.Machine(router)
	var cmd *exec.Cmd
	switch {
	case m == nil || m.Daemon == "":
		return "", fmt.Errorf("%s is no router", router)
	case m.Daemon == topology.BIRD:
		cmd = exec.CommandContext(ctx, "birdc", append([]string{"-s", l.path(router, birdSocket)}, strings.Fields(command)...)...)
	default:
		cmd = exec.CommandContext(ctx, "vtysh", "--vty_socket", l.path(router), "-c", command)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// SessionState is a BGP session as a router sees it.
type SessionState struct {
	Peer  string // the machine
	Up    bool
	State string // in the router's words
}

// Sessions returns every session of a router, as its own daemon sees them. One
// that carries two families is there once.
func (l *Lab) Sessions(ctx context.Context, router string) ([]SessionState, error) {
	m := l.Plan.Machine(router)
	states, err := l.sessionStates(ctx, m)
	if err != nil {
		return nil, err
	}
	var all []SessionState
	for _, s := range m.Sessions {
		state, ok := states[s.Name]
		if !ok {
			state, ok = states[s.Address.String()]
		}
		if !ok {
			return nil, fmt.Errorf("%s does not know of a session with %s", router, s.Peer)
		}
		all = append(all, SessionState{s.Peer, state == "Established", state})
	}
	return all, nil
}

// sessionStates returns states by the session's name or the peer's address.
func (l *Lab) sessionStates(ctx context.Context, m *topology.Machine) (map[string]string, error) {
	states := make(map[string]string)
	if m.Daemon == topology.BIRD {
		out, err := l.Ask(ctx, m.Name, "show protocols")
		for line := range strings.Lines(out) {
			// name, protocol, table, state, since, info
			if f := strings.Fields(line); len(f) >= 6 && f[1] == "BGP" {
				states[f[0]] = f[5]
			}
		}
		return states, err
	}
	out, err := l.Ask(ctx, m.Name, "show bgp summary json")
	if err != nil {
		return nil, err
	}
	var families map[string]struct {
		Peers map[string]struct {
			State string `json:"state"`
		} `json:"peers"`
	}
	if err := json.Unmarshal([]byte(out), &families); err != nil {
		return nil, fmt.Errorf("%s: %w in %q", m.Name, err, out)
	}
	for _, f := range families {
		for address, p := range f.Peers {
			states[address] = p.State
		}
	}
	return states, nil
}

// established is nil when every session of a router is.
func (l *Lab) established(ctx context.Context, router string) error {
	sessions, err := l.Sessions(ctx, router)
	for _, s := range sessions {
		if !s.Up {
			err = errors.Join(err, fmt.Errorf("session of %s with %s is %s", router, s.Peer, s.State))
		}
	}
	return err
}

// pathsUp is nil when a router has every BFD session Up that it should have.
func (l *Lab) pathsUp(ctx context.Context, router string) error {
	if !l.Plan.BFD.On() {
		return nil
	}
	m, command := l.Plan.Machine(router), "show bfd peers brief"
	if m.Daemon == topology.BIRD {
		command = "show bfd sessions"
	}
	out, err := l.Ask(ctx, router, command)
	if err != nil {
		return err
	}
	up := make(map[string]bool) // by the words of the lines that say so
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		if slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, "up") }) {
			for _, w := range words {
				up[w] = true
			}
		}
	}
	for _, s := range m.Sessions {
		if s.Node && !up[s.Address.String()] {
			return fmt.Errorf("%s has no BFD session Up with %s: %s", router, s.Peer, strings.TrimSpace(out))
		}
	}
	return nil
}

// clearSessions ends every BGP session of a router; its daemon opens them again.
func (l *Lab) clearSessions(ctx context.Context, router string) error {
	m := l.Plan.Machine(router)
	if m == nil {
		return fmt.Errorf("there is no %s", router)
	}
	if m.Daemon != topology.BIRD {
		_, err := l.Ask(ctx, router, "clear bgp *")
		return err
	}
	for _, s := range m.Sessions {
		if err := l.clearSession(ctx, m, s.Address); err != nil {
			return err
		}
	}
	return nil
}

// clearSession ends one of them.
func (l *Lab) clearSession(ctx context.Context, router *topology.Machine, peer netip.Addr) error {
	for _, s := range router.Sessions {
		if s.Address != peer {
			continue
		}
		command := "clear bgp " + peer.String()
		if router.Daemon == topology.BIRD {
			command = "restart " + s.Name
		}
		_, err := l.Ask(ctx, router.Name, command)
		return err
	}
	return fmt.Errorf("%s has no session with %s", router.Name, peer)
}
