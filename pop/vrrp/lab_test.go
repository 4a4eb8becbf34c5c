package vrrp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// eventually bounds every wait for something that must happen.
const eventually = 8 * time.Second

// routerEnv holds the config of a router, in JSON, for a process that is to be
// one: routers that are killed need processes of their own.
const routerEnv = "ANYEDGE_VRRP_TEST_ROUTER"

func TestMain(m *testing.M) {
	if config := os.Getenv(routerEnv); config != "" {
		if err := beRouter(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// transferable is a config that JSON can hold: the callback is shadowed.
type transferable struct {
	Config
	OnChange any `json:",omitempty"`
}

// beRouter runs a router until SIGTERM. It takes its health as JSON from stdin
// and writes every status that differs to stdout.
func beRouter(config string) error {
	var given transferable
	if err := json.Unmarshal([]byte(config), &given); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	given.Config.OnChange = func(s Status) { out.Encode(s) }
	r, err := New(given.Config, slog.New(slog.NewTextHandler(os.Stderr, nil)), nil)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		for in := json.NewDecoder(os.Stdin); ; {
			var h Health
			if in.Decode(&h) != nil {
				stop() // the test is gone
				return
			}
			r.Set(h)
		}
	}()
	return r.Run(ctx)
}

// The link-local address comes first, as it must.
var (
	virtual4 = []netip.Prefix{netip.MustParsePrefix("192.0.2.100/24")}
	virtual6 = []netip.Prefix{netip.MustParsePrefix("fe80::100/64"), netip.MustParsePrefix("2001:db8::100/64")}
)

var labs atomic.Int64

// lab is one LAN: a bridge in a namespace of its own, and namespaces for nodes
// a and b and a client c behind it.
type lab struct {
	t      *testing.T
	prefix string
	conns  map[string]*rtnl // by node
}

// newLab makes a LAN that is removed when the test ends, or skips the test.
func newLab(t *testing.T) *lab {
	t.Helper()
	if testing.Short() {
		t.Skip("short: network namespaces take seconds")
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip here: install Debian's iproute2")
	}
	removeStale(t)
	l := &lab{t: t, prefix: fmt.Sprintf("vrrpt-%d-%d-", os.Getpid(), labs.Add(1)), conns: make(map[string]*rtnl)}
	t.Cleanup(func() {
		for _, node := range []string{"a", "b", "c", "lan"} {
			exec.Command("ip", "netns", "del", l.prefix+node).Run()
		}
	})
	l.ip("netns add " + l.ns("lan"))
	l.in("lan", "ip link add br0 type bridge mcast_snooping 0")
	l.in("lan", "ip link set br0 up")
	for i, node := range []string{"a", "b", "c"} {
		l.ip("netns add " + l.ns(node))
		l.in(node, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")
		l.in(node, "ip link set lo up")
		l.ip(fmt.Sprintf("link add eth0 netns %s type veth peer name to-%s netns %s", l.ns(node), node, l.ns("lan")))
		l.in("lan", "ip link set to-"+node+" master br0 up")
		l.in(node, "ip link set eth0 up")
		l.in(node, fmt.Sprintf("ip addr add 192.0.2.%d/24 dev eth0", i+1))
		l.in(node, fmt.Sprintf("ip addr add 2001:db8::%d/64 dev eth0", i+1))
	}
	return l
}

var staleName = regexp.MustCompile(`vrrpt-(\d+)-\S+`)

// removeStale removes what test processes that were killed have left.
func removeStale(t *testing.T) {
	out, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	for _, m := range staleName.FindAllStringSubmatch(string(out), -1) {
		if pid, _ := strconv.Atoi(m[1]); syscall.Kill(pid, 0) == syscall.ESRCH {
			exec.Command("ip", "netns", "del", m[0]).Run()
		}
	}
}

func (l *lab) ns(node string) string { return l.prefix + node }

func (l *lab) ip(args string) {
	l.t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// in runs a command in a node's namespace and returns its output.
func (l *lab) in(node, command string) string {
	l.t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", l.ns(node)}, strings.Fields(command)...)...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %s: %v: %s", node, command, err, out)
	}
	return string(out)
}

// addresses are a node's, asked for over a connection of the test's own that was
// opened in the node's namespace: starting a process for every look would load
// the machine more than the routers do.
func (l *lab) addresses(node string) []address {
	l.t.Helper()
	c := l.conns[node]
	if c == nil {
		c = l.enter(node)
		l.conns[node] = c
	}
	var all []address
	for _, f := range []Family{IPv4, IPv6} {
		got, err := c.link("eth0", f)
		if err != nil {
			l.t.Fatalf("%s: %v", node, err)
		}
		all = append(all, got.addresses...)
	}
	return all
}

// enter opens a connection to the kernel in a node's namespace. The thread goes
// back: if it ended, so would the processes that it started.
func (l *lab) enter(node string) *rtnl {
	l.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		l.t.Fatal(err)
	}
	defer home.Close()
	ns, err := os.Open("/run/netns/" + l.ns(node))
	if err != nil {
		l.t.Fatal(err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		l.t.Fatal(err)
	}
	c, err := openRTNL(0)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // the thread must not be used by anybody else
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(c.close)
	return c
}

// has reports whether an address is on a node.
func (l *lab) has(node string, p netip.Prefix) bool {
	l.t.Helper()
	return slices.ContainsFunc(l.addresses(node), func(a address) bool { return a.prefix == p })
}

// until polls: the kernel's state has no common notification here.
func (l *lab) until(what string, condition func() bool) time.Duration {
	l.t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if condition() {
			return time.Since(begin)
		}
		if time.Since(begin) > eventually {
			l.t.Fatalf("not within %v: %s", eventually, what)
		}
	}
}

// process is a daemon in a node's namespace.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{}

	mu      sync.Mutex
	log     bytes.Buffer
	changed chan struct{} // closed and replaced when something was written
	status  Status        // a router's latest
}

func (l *lab) start(node, name string, env []string, command ...string) *process {
	l.t.Helper()
	p := &process{t: l.t, name: node + "/" + name, done: make(chan struct{}), changed: make(chan struct{})}
	p.cmd = exec.Command("ip", append([]string{"netns", "exec", l.ns(node)}, command...)...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	p.in, _ = p.cmd.StdinPipe()
	if err := p.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.line(lines.Bytes())
		}
	}()
	go func() {
		p.cmd.Wait()
		w.Close()
		close(p.done)
	}()
	l.t.Cleanup(func() {
		p.end(syscall.SIGKILL)
		if strings.Contains(p.text(), "DATA RACE") || strings.Contains(p.text(), "panic:") {
			l.t.Errorf("%s: broke down", p.name)
		}
		if l.t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			l.t.Logf("%s:\n%s", p.name, p.log.String())
		}
	})
	return p
}

func (p *process) line(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(b) > 0 && b[0] == '{' {
		json.Unmarshal(b, &p.status)
	}
	fmt.Fprintf(&p.log, "%s %s\n", time.Now().Format("05.000"), b)
	close(p.changed)
	p.changed = make(chan struct{})
}

// signal sends a signal and does not wait for what follows.
func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// end ends the process by a signal.
func (p *process) end(s syscall.Signal) {
	p.signal(s)
	select {
	case <-p.done:
	case <-time.After(eventually):
		p.t.Errorf("%s: does not end", p.name)
		p.cmd.Process.Kill()
	}
}

// await waits for what the process writes to meet a condition, and returns how
// long that took.
func (p *process) await(what string, condition func(log string, s Status) bool) time.Duration {
	p.t.Helper()
	timeout := time.After(eventually)
	for begin := time.Now(); ; {
		p.mu.Lock()
		ok, changed := condition(p.log.String(), p.status), p.changed
		p.mu.Unlock()
		if ok {
			return time.Since(begin)
		}
		select {
		case <-changed:
		case <-timeout:
			p.t.Fatalf("%s: not within %v: %s", p.name, eventually, what)
		}
	}
}

// becomes waits for a router to be in a state.
func (p *process) becomes(s State) time.Duration {
	p.t.Helper()
	return p.await(string(s), func(_ string, got Status) bool { return got.State == s })
}

// router starts a router of ours on a node, serving.
func (l *lab) router(node string, cfg Config) *process {
	l.t.Helper()
	cfg.Interface, cfg.VRID = "eth0", 51
	config, err := json.Marshal(transferable{Config: cfg})
	if err != nil {
		l.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	p := l.start(node, "router", []string{routerEnv + "=" + string(config)}, self)
	p.set(Health{Serving: true})
	return p
}

func (p *process) set(h Health) {
	if err := json.NewEncoder(p.in).Encode(h); err != nil {
		p.t.Errorf("%s: %v", p.name, err)
	}
}

// keepalived starts keepalived on a node, or skips the test.
func (l *lab) keepalived(node string, priority int, options string, virtual []netip.Prefix) *process {
	l.t.Helper()
	daemon, err := exec.LookPath("keepalived")
	if err != nil {
		if daemon, err = exec.LookPath("/usr/sbin/keepalived"); err != nil {
			l.t.Skip("no keepalived here: install Debian's keepalived")
		}
	}
	var list strings.Builder
	for _, p := range virtual {
		fmt.Fprintf(&list, "%s\n", p)
	}
	dir := l.t.TempDir()
	file := filepath.Join(dir, "keepalived.conf")
	config := fmt.Sprintf(`global_defs {
	vrrp_version 3
}
vrrp_instance edge {
	state BACKUP
	interface eth0
	virtual_router_id 51
	priority %d
	advert_int 0.1
	%s
	virtual_ipaddress {
		%s
	}
}
`, priority, options, list.String())
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return l.start(node, "keepalived", nil, daemon, "--dont-fork", "--log-console", "--log-detail", "--vrrp",
		"--use-file="+file, "--pid="+filepath.Join(dir, "pid"), "--vrrp_pid="+filepath.Join(dir, "vrrp.pid"))
}

// entered waits for keepalived's latest state to be the given one.
func (p *process) entered(state string) time.Duration {
	p.t.Helper()
	return p.await(state, func(log string, _ Status) bool {
		at := strings.LastIndex(log, "Entering ")
		return at >= 0 && strings.HasPrefix(log[at:], "Entering "+state+" STATE")
	})
}

var complaint = regexp.MustCompile(`(?i)checksum|invalid|mismatch|error|bad |discard|wrong|expected|unknown`)

// content fails the test for every line of keepalived's log that complains.
func (p *process) content() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range strings.Lines(p.log.String()) {
		if complaint.MatchString(line) {
			p.t.Errorf("keepalived complains: %s", line)
		}
	}
}

// hasAll and hasAny report whether addresses are on a node.
func (l *lab) hasAll(node string, all []netip.Prefix) bool {
	return !slices.ContainsFunc(all, func(p netip.Prefix) bool { return !l.has(node, p) })
}

func (l *lab) hasAny(node string, all []netip.Prefix) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return l.has(node, p) })
}

// text is all that the process has written.
func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}
