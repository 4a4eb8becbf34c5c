package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"anyedge/configs"
	"anyedge/pop"
)

// steps are the story: what an operator wants to have seen before he trusts
// the edge.
func (l *Lab) steps() []step {
	steps := []step{
		{"served over HTTP/1.1", none, func(ctx context.Context) (string, error) { return l.served(ctx, 0, "HTTP/1.1") }},
		{"served over HTTP/2", none, func(ctx context.Context) (string, error) { return l.served(ctx, 1, "HTTP/2.0") }},
		{"a session resumes at every PoP", none, l.resumes},
		{"DNS answers by client subnet", none, l.dnsSteers},
		{"backend added to the inventory", none, l.backendAdded},
		{"backend removed again", none, l.backendRemoved},
		{"bad config refused", none, l.badConfig},
		{"worker killed: no BGP change", inFlight, l.workerKilled},
		{"worker hangs: withdrawn, cured", shown, l.workerHangs},
		{"drained in order", none, l.drained},
		{"undrained", none, l.undrained},
		{"fleet store gone: nothing moves", none, l.storeGone},
		{"agent killed: traffic and DNS move", shown, l.agentKilled},
	}
	if len(l.cfg.Pops) > 2 {
		steps = append(steps, step{"last PoP hangs: withdrawal refused", shown, l.lastRefused})
	}
	return append(steps, step{"killed PoPs come back", shown, l.comeBack})
}

// first and second are the two PoPs that the router prefers.
func (l *Lab) first() configs.LabPop  { return l.cfg.Pops[0] }
func (l *Lab) second() configs.LabPop { return l.cfg.Pops[1] }

// served asks through the anycast address for one kind of client of the load,
// and checks that an origin of the best PoP answered.
func (l *Lab) served(ctx context.Context, client int, proto string) (string, error) {
	r, err := get(ctx, l.load.clients[client], l.load.urls[client])
	if err != nil {
		return "", err
	}
	origin := r.header.Get(originField)
	switch {
	case r.status != http.StatusOK:
		return "", fmt.Errorf("status %d", r.status)
	case r.proto != proto:
		return "", fmt.Errorf("served over %s", r.proto)
	case !strings.HasPrefix(origin, l.first().Name+"-"):
		return "", fmt.Errorf("served by %q, want an origin of %s, the best PoP", origin, l.first().Name)
	}
	return fmt.Sprintf("by %s over %s", origin, r.proto), nil
}

// originField is the response field in which a demo origin says who it is.
const originField = "Origin-Name"

// oneSession keeps the first session that it is given, so that every later
// handshake offers that very ticket.
type oneSession struct{ first *tls.ClientSessionState }

func (s *oneSession) Put(_ string, cs *tls.ClientSessionState) {
	if s.first == nil {
		s.first = cs
	}
}

func (s *oneSession) Get(string) (*tls.ClientSessionState, bool) { return s.first, s.first != nil }

// resumes makes a session at the first PoP and resumes it at all the others.
func (l *Lab) resumes(ctx context.Context) (string, error) {
	cache := new(oneSession)
	var seen []string
	for i, p := range l.cfg.Pops {
		resumed, err := l.handshake(ctx, l.layout.pop(i), cache)
		switch {
		case err != nil:
			return "", fmt.Errorf("%s: %w", p.Name, err)
		case resumed != (i > 0):
			return "", fmt.Errorf("%s: resumed is %v", p.Name, resumed)
		case i > 0:
			seen = append(seen, p.Name)
		}
	}
	return fmt.Sprintf("ticket of %s resumed at %s", l.first().Name, strings.Join(seen, ", ")), nil
}

// handshake connects to one PoP and reads a response, after which the server's
// ticket has arrived.
func (l *Lab) handshake(ctx context.Context, pop netip.Addr, cache tls.ClientSessionCache) (resumed bool, err error) {
	d := tls.Dialer{Config: &tls.Config{RootCAs: l.secrets.roots, ServerName: l.host(), ClientSessionCache: cache}}
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(pop, portTLS).String())
	if err != nil {
		return false, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(requestTimeout))
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", l.host()); err != nil {
		return false, err
	}
	var head [12]byte
	if _, err := c.Read(head[:]); err != nil {
		return false, err
	}
	if !bytes.HasPrefix(head[:], []byte("HTTP/1.1 200")) {
		return false, fmt.Errorf("answered %q", head)
	}
	return c.(*tls.Conn).ConnectionState().DidResume, nil
}

// backendAdded puts the spare origin into the best PoP's pool.
func (l *Lab) backendAdded(ctx context.Context) (string, error) {
	if err := l.setInventory(ctx, 0, l.first().Origins+1); err != nil {
		return "", err
	}
	start, spare := time.Now(), originName(l.first(), l.first().Origins)
	err := l.eventually(ctx, spare+" gets traffic", 15*time.Second, func(ctx context.Context) error {
		r, err := get(ctx, l.load.clients[0], l.load.urls[0])
		if err == nil && r.header.Get(originField) != spare {
			err = fmt.Errorf("served by %s", r.header.Get(originField))
		}
		return err
	})
	return fmt.Sprintf("%s probed and served %d ms later", spare, time.Since(start).Milliseconds()), err
}

// backendRemoved takes it out again: once the PoP knows, it gets no request.
func (l *Lab) backendRemoved(ctx context.Context) (string, error) {
	if err := l.setInventory(ctx, 0, l.first().Origins); err != nil {
		return "", err
	}
	spare := l.layout.spareOrigin(0, l.first().Origins)
	err := l.eventually(ctx, "the PoP forgets the backend", 10*time.Second, func(ctx context.Context) error {
		var pools pop.Pools
		if err := l.admin(ctx, l.first(), "/v1/pools", &pools); err != nil {
			return err
		}
		for _, p := range pools.Pools {
			for _, b := range p.Backends {
				if b.Address == spare {
					return fmt.Errorf("%s is still in pool %s", spare, p.Name)
				}
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	const requests = 60
	for range requests {
		r, err := get(ctx, l.load.clients[0], l.load.urls[0])
		if err != nil {
			return "", err
		}
		if name := r.header.Get(originField); name == originName(l.first(), l.first().Origins) {
			return "", fmt.Errorf("%s still got a request", name)
		}
	}
	return fmt.Sprintf("none of %d requests reached it", requests), nil
}

// badConfig breaks the first PoP's config file and reloads it, then mends it.
func (l *Lab) badConfig(ctx context.Context) (string, error) {
	file := l.path(l.first().Name + ".yaml")
	good, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	bad := bytes.Replace(good, []byte("pool: web,"), []byte("pool: nowhere,"), 1)
	if bytes.Equal(good, bad) {
		return "", errors.New("the config has no route to break")
	}
	before, err := l.status(ctx, l.first())
	if err != nil {
		return "", err
	}
	refused, err := l.reload(ctx, bad, func(s pop.Status) error {
		if s.Config.LastError == "" {
			return errors.New("not refused yet")
		}
		return nil
	})
	if err == nil && (refused.Config.Generation != before.Config.Generation || refused.Worker.PID != before.Worker.PID) {
		err = fmt.Errorf("generation %d became %d", before.Config.Generation, refused.Config.Generation)
	}
	_, mended := l.reload(ctx, good, func(s pop.Status) error {
		if s.Config.LastError != "" {
			return errors.New(s.Config.LastError)
		}
		return nil
	})
	if err := errors.Join(err, mended); err != nil {
		return "", err
	}
	return firstLine(refused.Config.LastError), nil
}

// reload writes the first PoP's config, sends SIGHUP and waits for what holds
// after it.
func (l *Lab) reload(ctx context.Context, data []byte, holds func(pop.Status) error) (pop.Status, error) {
	if err := l.write(l.first().Name+".yaml", data); err != nil {
		return pop.Status{}, err
	}
	if err := l.agents[l.first().Name].signal(syscall.SIGHUP); err != nil {
		return pop.Status{}, err
	}
	return l.until(ctx, l.first(), 10*time.Second, "reload", holds)
}

// workerKilled kills the best PoP's worker: its successor takes over on the
// same sockets before the route would have to go.
func (l *Lab) workerKilled(ctx context.Context) (string, error) {
	before, err := l.status(ctx, l.first())
	if err != nil {
		return "", err
	}
	if err := signal(before.Worker.PID, syscall.SIGKILL); err != nil {
		return "", err
	}
	start := time.Now()
	after, err := l.until(ctx, l.first(), 10*time.Second, "a new worker is ready", func(s pop.Status) error {
		if s.Worker.PID == before.Worker.PID || !s.Worker.Ready {
			return fmt.Errorf("worker %d, ready %v", s.Worker.PID, s.Worker.Ready)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	took := time.Since(start)
	if after.Announcement.Since != before.Announcement.Since || l.routeOf(l.first().Name) != "announced" {
		return "", fmt.Errorf("the route changed: %s", after.Announcement.Reason)
	}
	return fmt.Sprintf("new worker ready after %d ms, route untouched", took.Milliseconds()), nil
}

// workerHangs stops the best PoP's worker in its tracks.
func (l *Lab) workerHangs(ctx context.Context) (string, error) {
	before, err := l.status(ctx, l.first())
	if err != nil {
		return "", err
	}
	if err := signal(before.Worker.PID, syscall.SIGSTOP); err != nil {
		return "", err
	}
	start := time.Now()
	if err := l.routeBecomes(ctx, l.first(), "withdrawn"); err != nil {
		return "", err
	}
	withdrawn := time.Since(start)
	if best := l.bestPop(); best != l.second().Name {
		return "", fmt.Errorf("the best path leads to %q, want %s", best, l.second().Name)
	}
	if err := l.routeBecomes(ctx, l.first(), "announced"); err != nil {
		return "", err
	}
	after, err := l.status(ctx, l.first())
	if err == nil && after.Worker.PID == before.Worker.PID {
		err = errors.New("the worker was not replaced")
	}
	return fmt.Sprintf("withdrawn after %d ms, announced again after %d ms", withdrawn.Milliseconds(), time.Since(start).Milliseconds()), err
}

// drained takes the best PoP out through its admin API.
func (l *Lab) drained(ctx context.Context) (string, error) {
	if err := l.drain(ctx, l.first(), true); err != nil {
		return "", err
	}
	var stages []pop.DrainStage
	_, err := l.until(ctx, l.first(), 30*time.Second, "drained", func(s pop.Status) error {
		if !slices.Contains(stages, s.Drain.Stage) {
			stages = append(stages, s.Drain.Stage)
		}
		if s.Drain.Stage != pop.DrainCompleted {
			return fmt.Errorf("stage %s: %s", s.Drain.Stage, s.Announcement.Reason)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if best := l.bestPop(); best != l.second().Name {
		return "", fmt.Errorf("the best path leads to %q, want %s", best, l.second().Name)
	}
	if err := l.eventually(ctx, "DNS moves", 5*time.Second, l.dnsAvoids(0)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%v, DNS moved", stages), nil
}

func (l *Lab) undrained(ctx context.Context) (string, error) {
	if err := l.drain(ctx, l.first(), false); err != nil {
		return "", err
	}
	if err := l.routeBecomes(ctx, l.first(), "announced"); err != nil {
		return "", err
	}
	return "announced again", l.eventually(ctx, "DNS returns", 5*time.Second, l.dnsAnswersAll)
}

// storeGone takes the fleet store away for a while.
func (l *Lab) storeGone(ctx context.Context) (string, error) {
	before := make(map[string]pop.Status)
	for _, p := range l.cfg.Pops {
		s, err := l.status(ctx, p)
		if err != nil {
			return "", err
		}
		before[p.Name] = s
	}
	if err := l.store.cut(); err != nil {
		return "", err
	}
	start := time.Now()
	err := l.everywhere(ctx, "the loss is noticed", func(s pop.Status) error {
		if s.Fleet.Connected {
			return errors.New("still connected")
		}
		return nil
	})
	if err == nil {
		err = l.hold(ctx, 3*time.Second, before)
	}
	gone := time.Since(start)
	if err := errors.Join(err, l.store.restore()); err != nil {
		return "", err
	}
	err = l.everywhere(ctx, "the store is found again", func(s pop.Status) error {
		if !s.Fleet.Connected {
			return errors.New("not connected")
		}
		return nil
	})
	if err == nil {
		err = l.hold(ctx, time.Second, before)
	}
	return fmt.Sprintf("gone for %.1f s, every route and answer stayed", gone.Seconds()), err
}

// hold watches for a while that no announcement changes and DNS answers stay.
func (l *Lab) hold(ctx context.Context, span time.Duration, before map[string]pop.Status) error {
	for end := time.Now().Add(span); time.Now().Before(end); {
		for _, p := range l.cfg.Pops {
			s, err := l.status(ctx, p)
			if err != nil {
				return err
			}
			if s.Announcement.Since != before[p.Name].Announcement.Since || l.routeOf(p.Name) != "announced" {
				return fmt.Errorf("%s moved: %s", p.Name, s.Announcement.Reason)
			}
		}
		if err := l.dnsAnswersAll(ctx); err != nil {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// agentKilled kills the best PoP's agent, as a lost host would be.
func (l *Lab) agentKilled(ctx context.Context) (string, error) {
	before, err := l.status(ctx, l.first())
	if err != nil {
		return "", err
	}
	start := time.Now()
	if err := l.agents[l.first().Name].kill(); err != nil {
		return "", err
	}
	if err := l.routeBecomes(ctx, l.first(), "withdrawn"); err != nil {
		return "", err
	}
	routed := time.Since(start)
	if _, err := l.servedBy(ctx, l.second()); err != nil {
		return "", err
	}
	if err := l.eventually(ctx, "DNS moves", 10*time.Second, l.dnsAvoids(0)); err != nil {
		return "", err
	}
	steered := time.Since(start)
	if err := l.eventually(ctx, "the orphaned worker ends", 10*time.Second, func(context.Context) error {
		if signal(before.Worker.PID, syscall.Signal(0)) == nil {
			return fmt.Errorf("worker %d still runs", before.Worker.PID)
		}
		return nil
	}); err != nil {
		return "", err
	}
	return fmt.Sprintf("route gone after %d ms, DNS after %d ms, worker ended by itself", routed.Milliseconds(), steered.Milliseconds()), nil
}

// lastRefused kills all agents but the last PoP's and makes that one's worker
// hang: nobody is left to take its traffic, so its route must stay.
func (l *Lab) lastRefused(ctx context.Context) (string, error) {
	last := l.cfg.Pops[len(l.cfg.Pops)-1]
	for i, p := range l.cfg.Pops[:len(l.cfg.Pops)-1] {
		if i > 0 {
			if err := l.agents[p.Name].kill(); err != nil {
				return "", err
			}
		}
		// Until its report is too old, the fleet counts on it.
		if err := l.eventually(ctx, p.Name+" is missed", 10*time.Second, l.dnsAvoids(i)); err != nil {
			return "", err
		}
	}
	if _, err := l.servedBy(ctx, last); err != nil {
		return "", err
	}
	before, err := l.status(ctx, last)
	if err != nil {
		return "", err
	}
	if err := signal(before.Worker.PID, syscall.SIGSTOP); err != nil {
		return "", err
	}
	var refused string
	_, err = l.until(ctx, last, 15*time.Second, "de-preferred, then announced again", func(s pop.Status) error {
		if route := l.routeOf(last.Name); route == "withdrawn" || s.Announcement.State == pop.Withdrawn {
			return fmt.Errorf("%s at the router, %s: %s", route, s.Announcement.State, s.Announcement.Reason)
		}
		if s.Guard.Refused != "" {
			refused = s.Guard.Refused
		}
		if refused == "" || s.Worker.PID == before.Worker.PID || s.Announcement.State != pop.Announced {
			return fmt.Errorf("%s: %s", s.Announcement.State, s.Announcement.Reason)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	metrics, err := get(ctx, http.DefaultClient, l.adminURL(last, "/metrics"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(metrics.body)) {
		if strings.HasPrefix(line, "anyedge_pop_withdraw_refusals_total") && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
			return refused, nil
		}
	}
	return "", errors.New("the refusal is not in the metrics")
}

// comeBack starts the killed agents again.
func (l *Lab) comeBack(ctx context.Context) (string, error) {
	for _, p := range l.cfg.Pops[:max(len(l.cfg.Pops)-1, 1)] {
		if l.agents[p.Name].ended() == nil {
			if err := l.agents[p.Name].start(); err != nil {
				return "", err
			}
		}
	}
	if err := l.eventually(ctx, "every PoP serves", 30*time.Second, l.allServe); err != nil {
		return "", err
	}
	return fmt.Sprintf("all %d PoPs announced, %s preferred", len(l.cfg.Pops), l.bestPop()), nil
}

// servedBy waits until clients are served by a PoP's origins.
func (l *Lab) servedBy(ctx context.Context, p configs.LabPop) (string, error) {
	var origin string
	err := l.eventually(ctx, p.Name+" serves", 10*time.Second, func(ctx context.Context) error {
		r, err := get(ctx, l.load.clients[2], l.load.urls[2])
		if err != nil {
			return err
		}
		if origin = r.header.Get(originField); !strings.HasPrefix(origin, p.Name+"-") {
			return fmt.Errorf("served by %q", origin)
		}
		return nil
	})
	return origin, err
}

// routeBecomes waits until the router sees a PoP as given.
func (l *Lab) routeBecomes(ctx context.Context, p configs.LabPop, want string) error {
	return l.eventually(ctx, p.Name+" is "+want, 20*time.Second, func(context.Context) error {
		if got := l.routeOf(p.Name); got != want {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

// until polls a PoP's status until holds returns nil, and returns that status.
func (l *Lab) until(ctx context.Context, p configs.LabPop, limit time.Duration, what string, holds func(pop.Status) error) (pop.Status, error) {
	var s pop.Status
	err := l.eventually(ctx, p.Name+": "+what, limit, func(ctx context.Context) (err error) {
		if s, err = l.status(ctx, p); err != nil {
			return err
		}
		return holds(s)
	})
	return s, err
}

// everywhere waits until something holds at every PoP.
func (l *Lab) everywhere(ctx context.Context, what string, holds func(pop.Status) error) error {
	for _, p := range l.cfg.Pops {
		if _, err := l.until(ctx, p, 15*time.Second, what, holds); err != nil {
			return err
		}
	}
	return nil
}

func signal(pid int, s syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(s)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
