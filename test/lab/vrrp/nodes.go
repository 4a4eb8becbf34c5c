package vrrp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"anyedge/pop"
	"anyedge/test/lab/netns"
)

// servers are HTTP servers of this process inside of namespaces.
type servers struct {
	mu  sync.Mutex
	all []*http.Server
}

// serve starts one. It answers with what name says of a request.
func (s *servers) serve(in netns.Space, address string, name func(*http.Request) string) error {
	var l net.Listener
	if err := in.Do(func() (err error) { l, err = net.Listen("tcp", address); return err }); err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name(r)) })}
	s.mu.Lock()
	s.all = append(s.all, server)
	s.mu.Unlock()
	go server.Serve(l)
	return nil
}

func (s *servers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, server := range s.all {
		server.Close()
	}
	s.all = nil
}

// startSurroundings starts the origin, which answers with the name of the node
// that the request came from, the servers behind keepalived, which answer with
// their own, and Consul.
func (l *LAN) startSurroundings(ctx context.Context) error {
	err := l.servers.serve(space(centre), origin.String(), func(r *http.Request) string {
		from, _ := netip.ParseAddrPort(r.RemoteAddr)
		for name, a := range own4 {
			if a == from.Addr() {
				return name
			}
		}
		return r.RemoteAddr
	})
	if err != nil {
		return err
	}
	for _, node := range []string{first, second} {
		if l.options.daemon(node) == Keepalived {
			if err := l.servers.serve(space(node), "[::]:80", func(*http.Request) string { return node }); err != nil {
				return err
			}
		}
	}
	if !l.options.both() {
		return nil
	}
	if _, err := space(centre).Start(folder, path("consul.log"), l.options.Consul, "agent", "-dev", "-node=lab", "-log-level=warn", "-config-file="+path("consul.json")); err != nil {
		return err
	}
	return eventually(ctx, "Consul has a leader", func(ctx context.Context) error {
		var leader string
		if err := get(ctx, centre, fmt.Sprintf("http://%s/v1/status/leader", consul), &leader); err != nil || leader == "" {
			return fmt.Errorf("leader %q: %w", leader, err)
		}
		return nil
	})
}

// start starts a node's daemon, when what is left of the one before has ended.
func (l *LAN) start(ctx context.Context, node string) error {
	err := eventually(ctx, "all has ended on "+node, func(context.Context) error {
		found, err := netns.Processes(space(node))
		if n := len(found[space(node)]); n > 0 {
			err = fmt.Errorf("%d processes run", n)
		}
		return err
	})
	if err != nil {
		return err
	}
	command := []string{l.options.Binary, "pop", "--config", path(node, "pop.yaml")}
	if l.options.daemon(node) == Keepalived {
		for _, pid := range []string{"pid", "vrrp.pid"} { // of one that was killed
			if err := os.Remove(path(node, pid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		command = []string{keepalived, "--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file=" + path(node, "keepalived.conf"),
			"--pid=" + path(node, "pid"), "--vrrp_pid=" + path(node, "vrrp.pid")}
	}
	_, err = space(node).Start(path(node), path(node, "log"), command...)
	return err
}

// signal sends a signal to a node's daemon, or with "proxy" to the worker.
func (l *LAN) signal(node, role string, sig syscall.Signal) (time.Time, error) {
	found, err := space(node).Find(func(p netns.Process) bool {
		if l.options.daemon(node) == Keepalived {
			return p.Name() == "keepalived"
		}
		return len(p.Args) > 1 && p.Args[1] == role
	})
	if err != nil || len(found) == 0 {
		return time.Time{}, fmt.Errorf("no %s runs on %s: %w", role, node, err)
	}
	at := time.Now()
	for _, p := range found {
		err = errors.Join(err, p.Signal(sig))
	}
	return at, err
}

// ready is nil when a node's daemon takes part as it should: it has the addresses
// on the first node, and stands by on the second.
func (l *LAN) ready(ctx context.Context, node string) error {
	want := map[string]string{first: "active", second: "backup"}[node]
	if l.options.daemon(node) == Keepalived {
		return l.keepalivedReady(node, map[string]string{"active": "MASTER", "backup": "BACKUP"}[want])
	}
	var s pop.Status
	if err := get(ctx, node, "http://127.0.0.1:8600/v1/status", &s); err != nil {
		return err
	}
	if s.Announcement.State != pop.Announced {
		return fmt.Errorf("%s is %s: %s", node, s.Announcement.State, s.Announcement.Reason)
	}
	var r pop.Routes
	if err := get(ctx, node, "http://127.0.0.1:8600/v1/routes", &r); err != nil {
		return err
	}
	for _, v := range r.VRRP {
		if string(v.State) != want || v.Holding != (want == "active") {
			return fmt.Errorf("%s is %s of %s (%s)", node, v.State, v.Family, v.Reason)
		}
	}
	return nil
}

// keepalivedReady looks into keepalived's log for the state that it is in.
func (l *LAN) keepalivedReady(node, want string) error {
	data, err := os.ReadFile(path(node, "log"))
	if err != nil {
		return err
	}
	for _, instance := range []string{"edge4", "edge6"} {
		at := strings.LastIndex(string(data), "("+instance+") Entering ")
		if at < 0 || !strings.HasPrefix(string(data[at:]), "("+instance+") Entering "+want+" STATE") {
			return fmt.Errorf("%s of %s is not in state %s", instance, node, want)
		}
	}
	return nil
}

// Settled returns when all is well: the first node has the addresses and serves
// the client, the second stands by.
func (l *LAN) Settled(ctx context.Context) error {
	return eventually(ctx, "all is well", func(ctx context.Context) error {
		for _, node := range []string{first, second} {
			if err := l.ready(ctx, node); err != nil {
				return fmt.Errorf("%w; its output: %s", err, tail(node))
			}
		}
		for _, f := range Families() {
			if by, err := fetch(ctx, f); err != nil || by != first {
				return fmt.Errorf("%s: served by %q: %w", f, by, err)
			}
		}
		return nil
	})
}

func tail(node string) string {
	data, err := os.ReadFile(path(node, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-800):])
}

// eventually polls until check returns nil; its last error is returned when
// patience is over.
func eventually(ctx context.Context, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %s: %w", patience, what, err)
		}
	}
}

// get fetches JSON from a machine's point of view.
func get(ctx context.Context, machine, url string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: space(machine).Dial}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	return json.NewDecoder(io.LimitReader(res.Body, 16<<20)).Decode(out)
}
