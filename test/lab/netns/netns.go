// Package netns makes network namespaces and works inside them: it opens
// sockets and starts processes there, joins them by veth pairs, and takes them
// away with everything in them.
//
// Nothing is remembered between calls, so that whoever comes after a crash can
// clean up as well as whoever made the mess: a namespace is found by its name,
// and a process by the namespace it is in. Links are made inside of
// namespaces and go with them.
//
// # Concurrency
//
// All functions may be called at the same time. A namespace belongs to a
// thread, so what works inside one locks its goroutine to its thread for as
// short as it can.
package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// folder is where iproute2 keeps the names.
const folder = "/run/netns"

// Space is a network namespace by its name.
type Space string

// List returns the namespaces whose names begin with prefix, sorted.
func List(prefix string) ([]Space, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []Space
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			found = append(found, Space(e.Name()))
		}
	}
	return found, err
}

// Exists reports whether there is such a namespace.
func (s Space) Exists() bool {
	_, err := os.Stat(s.path())
	return err == nil
}

func (s Space) path() string { return filepath.Join(folder, string(s)) }

// IP runs lines of iproute2's batch language, without "ip", in the namespace; in
// the caller's if s is empty. The first line that fails ends it.
func (s Space) IP(ctx context.Context, lines ...string) error {
	args := []string{"-batch", "-"}
	if s != "" {
		args = []string{"-n", string(s), "-batch", "-"}
	}
	return feed(ctx, exec.CommandContext(ctx, "ip", args...), lines)
}

// feed runs a command that reads lines from its standard input.
func feed(ctx context.Context, cmd *exec.Cmd, lines []string) error {
	var out bytes.Buffer
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}

// enter moves the calling goroutine, locked to its thread, into the namespace.
// The function that it returns moves it back; it may be called more than once.
// A thread that cannot be moved back stays locked and so ends with its
// goroutine.
func (s Space) enter() (leave func() error, err error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	target, err := os.Open(s.path())
	if err == nil {
		err = unix.Setns(int(target.Fd()), unix.CLONE_NEWNET)
		target.Close()
	}
	if err != nil {
		home.Close()
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter namespace %s: %w", s, err)
	}
	return sync.OnceValue(func() error {
		defer home.Close()
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("leave namespace %s: %w", s, err)
		}
		runtime.UnlockOSThread()
		return nil
	}), nil
}

// Do calls f inside the namespace. What f opens belongs to the namespace for
// good; goroutines that f starts do not run in it.
func (s Space) Do(f func() error) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	return errors.Join(f(), leave())
}

// Dial connects from the namespace to an address that is not a name. Like
// [net.Dialer.DialContext], it returns when the connection stands or ctx ends.
func (s Space) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return s.dial(ctx, net.Dialer{}, network, address)
}

// DialFrom connects over TCP from a port; 0 leaves that to the kernel.
func (s Space) DialFrom(ctx context.Context, port uint16, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if port != 0 {
		d.LocalAddr = &net.TCPAddr{Port: int(port)}
	}
	return s.dial(ctx, d, "tcp", to.String())
}

func (s Space) dial(ctx context.Context, d net.Dialer, network, address string) (net.Conn, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	// A socket stays in the namespace in which it was made, and Control is called
	// right after that: the thread need not stay while the socket connects.
	d.Control = func(string, string, syscall.RawConn) error { return leave() }
	c, err := d.DialContext(ctx, network, address)
	if e := leave(); e != nil && err == nil {
		c.Close()
		err = e
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Sysctl sets kernel parameters below /proc/sys/net, such as
// "ipv4/ip_forward=1".
func (s Space) Sysctl(settings ...string) error {
	return s.Do(func() error {
		for _, set := range settings {
			key, value, _ := strings.Cut(set, "=")
			if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0o644); err != nil {
				return fmt.Errorf("namespace %s: %w", s, err)
			}
		}
		return nil
	})
}

// Drop has the namespace lose everything that arrives at one of its interfaces,
// ARP and neighbor discovery included, without a word to anybody.
func (s Space) Drop(ctx context.Context, iface string) error {
	return s.nft(ctx,
		"table netdev "+table(iface)+" {",
		"chain arriving {",
		fmt.Sprintf("type filter hook ingress device %q priority 0; policy drop;", iface),
		"}", "}")
}

// Accept ends what Drop began. It is no error if Drop was not called.
func (s Space) Accept(ctx context.Context, iface string) error {
	t := table(iface)
	return s.nft(ctx, "add table netdev "+t, "delete table netdev "+t)
}

// refusal is the table of Refuse and Admit.
const refusal = "refusal"

// Refuse has the namespace answer every TCP segment to one of its own addresses
// with a reset.
func (s Space) Refuse(ctx context.Context, to netip.AddrPort) error {
	ip := "ip"
	if to.Addr().Is6() {
		ip = "ip6"
	}
	return s.nft(ctx,
		"table inet "+refusal+" {",
		"chain input {",
		"type filter hook input priority 0;",
		fmt.Sprintf("%s daddr %s tcp dport %d reject with tcp reset", ip, to.Addr(), to.Port()),
		"}", "}")
}

// Admit ends what Refuse began. It is no error if Refuse was not called.
func (s Space) Admit(ctx context.Context) error {
	return s.nft(ctx, "add table inet "+refusal, "delete table inet "+refusal)
}

// table is a name as nftables wants it.
func table(iface string) string { return "drop_" + strings.ReplaceAll(iface, "-", "_") }

func (s Space) nft(ctx context.Context, lines ...string) error {
	return s.Do(func() error { return feed(ctx, exec.CommandContext(ctx, "nft", "-f", "-"), lines) })
}
