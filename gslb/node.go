package gslb

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"anyedge/configs"
	"anyedge/gslb/geo"
	"anyedge/gslb/steer"
	"anyedge/gslb/steer/planner"
	"anyedge/internal/audit"
	"anyedge/internal/daemon"
	"anyedge/internal/fleet"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Node is a Server that follows the fleet: its steering table changes with the
// reports of the nodes, with drains, overrides and what the nodes measure, and its
// zones, clients and names with its config file.
//
// While the fleet store is out of reach, the answers stay as they were.
type Node struct {
	server *Server
	fleet  *fleet.Fleet
	keys   *keyKeeper
	log    *slog.Logger
	file   string
	// certificate is that of the encrypted transports, replaced by Reload; nil
	// without them.
	certificate *atomic.Pointer[tls.Certificate]
	planning    *planning
	teller      *demandTeller
	audit       *audit.Log
	pulse       daemon.Pulse // of follow

	reloads sync.Mutex // held by a reload, before mu

	mu      sync.Mutex // guards what follows
	cfg     *configs.GSLB
	read    ConfigStatus
	clients []steer.Client
	outcome *planner.Outcome // of the last plan for the config's PoPs, nil before
	// input is that of the table in force, expires when one of its overrides does;
	// zero if none does.
	input   steer.Input
	expires time.Time
}

// NodeOptions is what a Node is made of.
type NodeOptions struct {
	File     string        // the config file, read again by Reload
	Config   *configs.GSLB // its contents
	Store    fleet.Store
	Sealer   *fleet.Sealer // nil only with a memory store
	Log      *slog.Logger
	Registry prometheus.Registerer
	Sockets  int // as of Config
	// StateDir is a directory of this node's own for its audit log. It exists.
	// Empty keeps the log in memory, and in Log.
	StateDir string
}

// NewNode reads the zone files and the map of clients. It opens no sockets.
func NewNode(o NodeOptions) (*Node, error) {
	f, err := fleet.New(fleet.Config{
		Store: o.Store, Sealer: o.Sealer, FollowRTT: true, ValidZoneKeys: validZoneKeys,
		Log: o.Log.With("part", "fleet"), Metrics: o.Registry,
	})
	if err != nil {
		return nil, err
	}
	clients, err := readClients(o.Config)
	if err != nil {
		return nil, err
	}
	c, certificate, err := serverConfig(o.Config)
	if err != nil {
		return nil, err
	}
	c.Sockets = o.Sockets
	server, err := New(c, o.Log.With("part", "dns"), o.Registry)
	if err != nil {
		return nil, err
	}
	keys, err := newKeyKeeper(o.Config, f, server, o.Log.With("part", "dnssec"))
	if err != nil {
		return nil, err
	}
	keys.step(context.Background(), time.Now(), f.View()) // with the keys of files
	n := &Node{server: server, fleet: f, keys: keys, log: o.Log, file: o.File, certificate: certificate, cfg: o.Config, clients: clients}
	n.read.LastGood = time.Now()
	if n.audit, err = audit.Open(audit.Config{Dir: o.StateDir, Log: o.Log.With("part", "audit")}); err != nil {
		return nil, err
	}
	n.planning = newPlanning(n, newPlanMetrics(o.Registry))
	n.teller = newDemandTeller(n, o.Store, o.Registry)
	return n, n.steer(time.Now(), true)
}

// String names the node as a task.
func (n *Node) String() string { return "dns node" }

// Run serves until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.server.Run(ctx) })
	group.Go(func() error { return n.fleet.Run(ctx) })
	group.Go(func() error { n.follow(ctx); return nil })
	group.Go(func() error { n.planning.run(ctx); return nil })
	group.Go(func() error { n.teller.run(ctx); return nil })
	group.Go(func() error { n.keys.run(ctx); return nil })
	if asked := resolvers(n.config().Resolvers); len(asked) > 0 {
		group.Go(func() error { n.keys.watchParents(ctx, asked.ask); return nil })
	}
	return group.Wait()
}

// Status returns what is served.
func (n *Node) Status() Status { return n.server.Status() }

// Connected reports whether the fleet store answers.
func (n *Node) Connected() bool { return n.fleet.View().Connected }

// follow keeps the table in step with the fleet.
func (n *Node) follow(ctx context.Context) {
	// Reports also age without any change in the store.
	ticker := time.NewTicker(n.config().Fleet.ReportTTL.Std() / 10)
	defer ticker.Stop()
	for {
		view := n.fleet.View()
		n.planning.heard(view)
		if err := n.steer(time.Now(), false); err != nil {
			n.log.Error("steering table not built, the last one stays", "error", err)
		}
		n.pulse.Beat()
		select {
		case <-ctx.Done():
			return
		case <-view.Changed():
		case <-ticker.C:
		}
	}
}

// Alive reports whether the node still follows the fleet. It is for a watchdog: what
// a node that hangs answers would grow old unnoticed.
func (n *Node) Alive() bool { return n.pulse.Within(time.Minute + n.config().Fleet.ReportTTL.Std()) }

// steer builds the table anew if what it is made from has changed, or if it must.
func (n *Node) steer(now time.Time, must bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	in := n.tableInput(n.cfg, n.clients, now)
	same := reflect.DeepEqual(in.Pops, n.input.Pops) && slices.Equal(in.Overrides, n.input.Overrides)
	expired := !n.expires.IsZero() && !now.Before(n.expires)
	if !must && same && !expired {
		return nil
	}
	table, err := BuildTable(in)
	if err != nil {
		return err
	}
	if err := n.server.Update(table); err != nil {
		return err
	}
	moved := false
	for i, p := range in.Pops {
		if i >= len(n.input.Pops) || n.input.Pops[i].State != p.State || n.input.Pops[i].Drained != p.Drained {
			n.log.Info("pop changed for the dns", "pop", p.Name, "state", p.State.String(), "drained", p.Drained)
			moved = true
		}
	}
	if moved {
		n.planning.changed()
	}
	n.input, n.expires = in, table.NextExpiry()
	return nil
}

// tableInput is what the table of a config is made from now.
func (n *Node) tableInput(cfg *configs.GSLB, clients []steer.Client, now time.Time) steer.Input {
	view := n.fleet.View()
	in := steer.Input{
		Pops: steerPops(cfg, view, now), Clients: clients, Names: steerNames(cfg), Overrides: steerOverrides(view, now), Now: now,
	}
	if o := n.outcome; o != nil && o.Fits(in.Pops) {
		in.Measured, in.Rows, in.Assigned, in.Shares = o.Measured, o.Rows, o.Assigned, o.Shares
	}
	return in
}

// adopt puts a plan in force, and reports whether it did: not if it is about other
// PoPs than the config has by now. Nil is for a config that needs none.
func (n *Node) adopt(o *planner.Outcome) bool {
	n.mu.Lock()
	if o == nil {
		n.outcome = nil
		n.mu.Unlock()
		return false
	}
	fits := slices.EqualFunc(n.cfg.Pops, o.Loads, func(a configs.SteerPop, b planner.Pop) bool { return a.Name == b.Name })
	if fits {
		n.outcome = o
	}
	n.mu.Unlock()
	if !fits {
		n.planning.changed()
		return false
	}
	if err := n.steer(time.Now(), true); err != nil {
		n.log.Error("steering table not built, the last one stays", "error", err)
		return false
	}
	return true
}

// sources returns the config and the map of clients.
func (n *Node) sources() (*configs.GSLB, []steer.Client) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cfg, n.clients
}

func (n *Node) config() *configs.GSLB {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cfg
}

// serverConfig is what the server is made from, and the certificate that it
// shows, which may be replaced.
func serverConfig(cfg *configs.GSLB) (Config, *atomic.Pointer[tls.Certificate], error) {
	c := Config{Listen: cfg.Listen, Zones: zonesOf(cfg), Resolvers: cfg.Resolvers, NSID: cfg.NSID, LogQueries: cfg.Log.Requests}
	var err error
	if c.Keys, err = readKeys(cfg); err != nil {
		return c, nil, err
	}
	if c.CookieSecrets, err = readCookieSecrets(cfg); err != nil {
		return c, nil, err
	}
	if l := cfg.RateLimit; l != nil {
		c.RateLimit = RateLimit{Responses: l.Responses, Slip: *cmp.Or(l.Slip, new(2)), Exempt: l.Exempt}
	}
	if x := cfg.XDP; x != nil {
		c.XDP = XDP{Interface: x.Interface, Generic: x.Mode == "generic"}
	}
	first, err := readCertificate(cfg)
	if err != nil || first == nil {
		return c, nil, err
	}
	current := new(atomic.Pointer[tls.Certificate])
	current.Store(first)
	c.TLS, c.HTTPS = cfg.Encrypted.DoT, cfg.Encrypted.DoH
	c.TLSConfig = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil },
	}
	return c, current, nil
}

// readKeys returns the keys that messages are signed with, or the problems of all.
func readKeys(cfg *configs.GSLB) (keys []Key, err error) {
	var errs []error
	for i, k := range cfg.Keys {
		secret, err := ReadKeySecret(k.SecretFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("keys[%d].secret_file: %w", i, err))
		}
		keys = append(keys, Key{Name: k.Name, Algorithm: cmp.Or(k.Algorithm, "hmac-sha256"), Secret: secret})
	}
	return keys, errors.Join(errs...)
}

// readCertificate returns nil if nothing is encrypted.
func readCertificate(cfg *configs.GSLB) (*tls.Certificate, error) {
	if cfg.Encrypted == nil {
		return nil, nil
	}
	c, err := tls.LoadX509KeyPair(cfg.Encrypted.CertFile, cfg.Encrypted.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("encrypted: %s with %s: %w", cfg.Encrypted.CertFile, cfg.Encrypted.KeyFile, err)
	}
	return &c, nil
}

// readCookieSecrets returns none if no file is named.
func readCookieSecrets(cfg *configs.GSLB) ([]CookieSecret, error) {
	if cfg.CookieFile == "" {
		return nil, nil
	}
	return ReadCookieSecrets(cfg.CookieFile)
}

func zonesOf(cfg *configs.GSLB) []Zone {
	zones := make([]Zone, len(cfg.Zones))
	for i, z := range cfg.Zones {
		zones[i] = Zone{Name: z.Name, File: z.File, Alias: z.Alias, Primaries: peersOf(z.Primaries), CopyFile: z.CopyFile, Signing: signingOf(z.DNSSEC)}
		if t := z.Transfer; t != nil {
			zones[i].Transfer = &Transfer{Allow: t.Allow, Keys: t.Keys, Notify: peersOf(t.Notify)}
		}
	}
	return zones
}

func peersOf(list []configs.DNSPeer) []Peer {
	var peers []Peer
	for _, p := range list {
		peers = append(peers, Peer(p))
	}
	return peers
}

func readClients(cfg *configs.GSLB) ([]steer.Client, error) {
	var listed []steer.Client
	if cfg.Clients != "" {
		f, err := os.Open(cfg.Clients)
		if err != nil {
			return nil, fmt.Errorf("clients: %w", err)
		}
		defer f.Close()
		if listed, err = ParseClients(f, cfg.Clients); err != nil {
			return nil, err
		}
	}
	located, err := readGeo(cfg.Geo)
	if err != nil {
		return nil, fmt.Errorf("geo: %w", err)
	}
	return geo.Override(listed, located), nil
}

// readGeo returns no networks without a database. The database is read whole and
// not mapped: whoever writes over it meanwhile makes it bad, and no more.
func readGeo(cfg *configs.Geo) ([]steer.Client, error) {
	if cfg == nil {
		return nil, nil
	}
	f, err := os.Open(cfg.Points)
	if err != nil {
		return nil, fmt.Errorf("points: %w", err)
	}
	defer f.Close()
	points, err := geo.ReadPoints(f, cfg.Points)
	if err != nil {
		return nil, err
	}
	db, err := os.ReadFile(cfg.File)
	if err != nil {
		return nil, err
	}
	return geo.Read(db, cfg.File, points)
}

func steerNames(cfg *configs.GSLB) []steer.Name {
	names := make([]steer.Name, len(cfg.Names))
	for i, c := range cfg.Names {
		policy, _ := steer.ParsePolicy(c.Policy) // the config was validated
		names[i] = steer.Name{Name: c.Name, Policy: policy, TTL: c.TTL.Std()}
		for _, a := range c.Answers {
			names[i].Answers = append(names[i].Answers, steer.Answer{Pop: a.Pop, Weight: *cmp.Or(a.Weight, new(1))})
		}
	}
	return names
}

// steerPops says how the DNS sees each PoP of the config now.
func steerPops(cfg *configs.GSLB, view *fleet.View, now time.Time) []steer.Pop {
	ttl := cfg.Fleet.ReportTTL.Std()
	pops := make([]steer.Pop, len(cfg.Pops))
	for i, c := range cfg.Pops {
		pops[i] = steer.Pop{Name: c.Name, Lat: c.Latitude, Lon: c.Longitude, Addresses: c.Addresses}
		if !c.Anycast {
			pops[i].State, pops[i].Drained = popState(c.Name, view, now, ttl)
			pops[i].Note = popNote(c.Name, view, now, ttl)
			continue
		}
		// Anycast is as good as the best PoP there is, and Up while one is.
		_, pops[i].Drained = view.Drained("", c.Name, "", now)
		pops[i].State, pops[i].Note = anycastState(view, now, ttl), "anycast"
	}
	return pops
}

// anycastState is the best state of all the fleet's PoPs.
func anycastState(view *fleet.View, now time.Time, ttl time.Duration) steer.State {
	best := steer.Down
	if len(view.Reports) == 0 {
		best = steer.Unknown
	}
	seen := make(map[string]bool)
	for _, r := range view.Reports {
		if seen[r.Pop] {
			continue
		}
		seen[r.Pop] = true
		switch state, drained := popState(r.Pop, view, now, ttl); {
		case state == steer.Up && !drained:
			return steer.Up
		case state == steer.Unknown:
			best = steer.Unknown
		}
	}
	return best
}

// popNote says for people what a PoP's state is from. It tells no ages, so that it
// changes with the state only.
func popNote(pop string, view *fleet.View, now time.Time, ttl time.Duration) string {
	var notes []string
	if d, ok := view.Drained("", pop, "", now); ok {
		notes = append(notes, strings.TrimSpace("drained by "+d.By+" "+d.Reason))
	}
	for _, r := range view.Reports {
		if r.Pop != pop {
			continue
		}
		note := r.Node + " " + r.State + " and " + r.Announcement
		if !view.Fresh(r, now, ttl) {
			note = r.Node + " is silent"
		} else if _, ok := view.Drained(r.Node, r.Pop, r.Region, now); ok {
			note += ", drained"
		}
		notes = append(notes, note)
	}
	if len(notes) == 0 {
		return "no node reports"
	}
	return strings.Join(notes, "; ")
}

// popState is the best state of a PoP's nodes. A PoP is drained when a drain
// names it, its region, or all of its nodes that are heard of.
//
// A node that nobody has heard of for a while, and one that asks for less
// traffic, is Unknown: clients go there only when no PoP is known to be up. Only
// a node that says so itself is Down.
func popState(pop string, view *fleet.View, now time.Time, ttl time.Duration) (state steer.State, drained bool) {
	_, drained = view.Drained("", pop, "", now)
	best, nodes, out := steer.Down, 0, 0
	for _, r := range view.Reports {
		if r.Pop != pop {
			continue
		}
		nodes++
		if _, ok := view.Drained(r.Node, r.Pop, r.Region, now); ok {
			out++
			continue
		}
		switch s := nodeState(r, view.Fresh(r, now, ttl)); {
		case s == steer.Up:
			best = steer.Up
		case s == steer.Unknown && best == steer.Down:
			best = steer.Unknown
		}
	}
	switch {
	case nodes == 0:
		return steer.Unknown, drained
	case out == nodes:
		return steer.Unknown, true
	}
	return best, drained
}

func nodeState(r fleet.Seen, fresh bool) steer.State {
	switch {
	case !fresh || r.State == fleet.StateUnknown:
		return steer.Unknown
	case r.State == fleet.StateUnhealthy:
		return steer.Down
	case r.Announcement == fleet.Announced:
		return steer.Up
	}
	return steer.Unknown
}
