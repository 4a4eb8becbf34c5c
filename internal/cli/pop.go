package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"anyedge/configs"
	"anyedge/internal/daemon"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
	"anyedge/pop"
	"anyedge/pop/link"
	"anyedge/pop/proxy"
)

// runPop runs a node's agent.
func runPop(c *invocation) error {
	file := c.flags.String("config", "", "the node's config `file`")
	state := c.flags.String("state-dir", stateDirectory(), "a `directory` of this node's own, for what a restart has to find again; without one a restart asks the fleet store only")
	if err := c.parse(0); err != nil {
		return err
	}
	if *file == "" {
		return usagef("--config is required")
	}
	cfg, source, err := configs.ReadPop(*file)
	if err != nil {
		return err
	}
	log, err := daemon.NewLogger(c.errOut, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return err
	}
	notifier, err := daemon.NewNotifier()
	if err != nil {
		return err
	}
	store, sealer, catalog, err := openFleet(cfg.Fleet, log)
	if err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	registry := ops.NewRegistry()
	agent, err := pop.New(pop.Options{
		File: *file, Config: cfg, Source: source.Data(), Store: store, Sealer: sealer, Catalog: catalog,
		Worker:   []string{binary, "proxy", "--log-level", cfg.Log.Level, "--log-format", cfg.Log.Format},
		BFD:      []string{binary, "bfd"},
		StateDir: *state,
		Log:      log.With("node", cfg.Node.Name),
		Registry: registry,
	})
	if err != nil {
		return err
	}
	admin := ops.New(ops.Config{
		Address:  cfg.Admin.Address,
		Name:     cfg.Node.Name,
		Gatherer: agent,
		Health: func() (bool, any) {
			s := agent.Status()
			return agent.Healthy(), map[string]any{"state": s.Health.State, "reason": s.Health.Reason, "announcement": s.Announcement.State}
		},
		Endpoints: slices.Concat(popEndpoints(agent), rolloutEndpoints(agent), upstreamEndpoints(agent)),
		Page:      popPage(agent),
		Log:       log.With("part", "admin"),
	})
	if err := admin.Listen(); err != nil {
		return err
	}
	return serve(log, notifier, agent, nil, agent, admin)
}

// stateDirectory is where the service manager says that state belongs (see
// systemd.exec(5), StateDirectory=); of several the first.
func stateDirectory() string {
	first, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return first
}

// reloader is a daemon that a service manager looks after.
type reloader interface {
	Reload(context.Context) error
	Alive() bool
}

// serve runs a daemon's tasks until a signal ends it, and reloads it on SIGHUP. It
// tells the service manager that the daemon serves when ready is closed, at once if
// that is nil, and from then on that it is alive.
func serve(log *slog.Logger, notifier *daemon.Notifier, node reloader, ready <-chan struct{}, tasks ...daemon.Task) error {
	ctx, stop := daemon.Terminate(context.Background())
	defer stop()
	hangups, end := daemon.Hangups()
	defer end()
	group := daemon.NewGroup(log)
	group.Add(tasks...)
	group.Add(daemon.NewTask("watchdog", func(ctx context.Context) error { return notifier.Watchdog(ctx, node.Alive) }))
	group.Add(daemon.NewTask("reloads", func(ctx context.Context) error {
		if ready != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-ready:
			}
		}
		notify(log, notifier.Ready("serving"))
		for {
			select {
			case <-ctx.Done():
				notify(log, notifier.Stopping())
				return nil
			case <-hangups:
			}
			notify(log, notifier.Reloading())
			status := "serving, reloaded"
			if err := node.Reload(ctx); err != nil {
				status = "serving, reload refused: " + err.Error()
			} else {
				log.Info("reloaded")
			}
			notify(log, notifier.Ready(status))
		}
	}))
	log.Info("started", "pid", os.Getpid())
	err := group.Run(ctx)
	log.Info("ended", "cause", context.Cause(ctx))
	return err
}

// notify logs that the service manager did not get word.
func notify(log *slog.Logger, err error) {
	if err != nil {
		log.Warn("service manager was not told", "error", err)
	}
}

// openFleet makes the store that a config names.
func openFleet(cfg configs.Fleet, log *slog.Logger) (fleet.Store, *fleet.Sealer, *fleet.Catalog, error) {
	var sealer *fleet.Sealer
	if cfg.KeyFile != "" {
		var err error
		if sealer, err = fleet.LoadSealer(cfg.KeyFile); err != nil {
			return nil, nil, nil, fmt.Errorf("fleet.key_file: %w", err)
		}
	}
	if cfg.Consul == nil {
		return fleet.NewMemory(), sealer, nil, nil
	}
	k := cfg.Consul
	consul, err := fleet.NewConsul(fleet.ConsulConfig{
		Address: k.Address, TokenFile: k.TokenFile, Prefix: k.Prefix,
		CAFile: k.CAFile, CertFile: k.CertFile, KeyFile: k.KeyFile, Datacenter: k.Datacenter,
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("fleet.consul: %w", err)
	}
	return consul, sealer, consul.Catalog(log.With("part", "catalog")), nil
}

// DrainRequest is the body of POST /v1/drain.
type DrainRequest struct {
	Scope  string           `json:"scope"` // node, pop or region
	Name   string           `json:"name"`  // empty: this node's
	Drain  bool             `json:"drain"` // false ends a drain
	By     string           `json:"by,omitempty"`
	Reason string           `json:"reason,omitempty"`
	For    configs.Duration `json:"for,omitempty"` // 0: until it is ended
	// Prefix limits it to one service prefix, which is de-preferred only.
	Prefix netip.Prefix `json:"prefix,omitzero"`
}

// popEndpoints is the admin API of a node.
func popEndpoints(a *pop.Agent) []ops.Endpoint {
	get := func(path, doc string, load func() any) ops.Endpoint {
		return ops.Endpoint{Method: http.MethodGet, Path: path, Doc: doc,
			Handle: func(context.Context, ops.Request) (any, error) { return load(), nil }}
	}
	return []ops.Endpoint{
		get("/v1/status", "health, announcement, guard, drain, worker, config and fleet", func() any { return a.Status() }),
		get("/v1/routes", "what should be announced, and what is, to whom, and why not", func() any { return a.Routes() }),
		get("/v1/fleet", "every node's report as this node has it, what the loss of each PoP would do, and the DNS nodes' plan", func() any { return a.Fleet() }),
		get("/v1/pools", "backends and how they are doing", func() any { return a.Pools() }),
		get("/v1/tickets", "session ticket keys, without the keys", func() any { return a.Tickets() }),
		{Method: http.MethodGet, Path: "/v1/explain", Doc: "why a route is announced as it is, and the last decisions; ?prefix=P&last=N", Handle: explain(a)},
		auditEndpoint(a.Audit),
		get("/v1/drain", "every drain in the fleet", func() any { return map[string]any{"drains": a.Drains()} }),
		get("/v1/override", "every override in force in the fleet", func() any { return map[string]any{"overrides": a.Overrides()} }),
		{Method: http.MethodPost, Path: "/v1/override", Doc: "put an override in force for a while, or clear one",
			Handle: func(ctx context.Context, r ops.Request) (any, error) { return nil, override(ctx, a, r) }},
		reloadEndpoint(a.ReloadBy),
		{Method: http.MethodPost, Path: "/v1/drain", Doc: "begin or end a drain of a node, a PoP or a region, or of one prefix there",
			Handle: func(ctx context.Context, r ops.Request) (any, error) { return nil, drain(ctx, a, r) }},
	}
}

// drain carries out a POST /v1/drain.
func drain(ctx context.Context, a *pop.Agent, r ops.Request) error {
	var req DrainRequest
	if err := r.Decode(&req); err != nil {
		return err
	}
	n := a.Node()
	own := map[string]string{fleet.ScopeNode: n.Name, fleet.ScopePop: n.Pop, fleet.ScopeRegion: n.Region}
	name, known := own[req.Scope]
	if !known {
		return ops.BadRequest("scope: %q is not node, pop or region", req.Scope)
	}
	if req.Name != "" {
		name = req.Name
	}
	who := actor(r, req.By)
	d := fleet.Drain{Scope: req.Scope, Name: name, Prefix: req.Prefix, By: req.By, Reason: req.Reason}
	err := d.Validate()
	if err != nil {
		return ops.BadRequest("%w", err)
	}
	if req.Drain {
		err = a.SetDrain(ctx, who, d, req.For.Std())
	} else {
		err = a.ClearDrain(ctx, who, d)
	}
	return taken(err)
}

// taken is what a caller learns of a write to the fleet store.
func taken(err error) error {
	if err != nil {
		return ops.Unavailable("the fleet store did not take it: %w", err)
	}
	return nil
}

// runWorker is the data plane process.
func runWorker(c *invocation) error {
	level := c.flags.String("log-level", "info", "")
	format := c.flags.String("log-format", "text", "")
	if err := c.parse(0); err != nil {
		return err
	}
	log, err := daemon.NewLogger(c.errOut, *level, *format)
	if err != nil {
		return err
	}
	const descriptor = 3 // the agent's end of the link
	f := os.NewFile(descriptor, "link")
	conn, err := link.FromFile(f)
	if err != nil {
		return errors.New("started without an agent; run \"anyedge pop\"")
	}
	// The agent decides when a worker ends: it closes the link. A signal to the
	// whole process group, or a SIGTERM by mistake, must not get ahead of it.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	reg := prometheus.NewRegistry()
	prometheus.WrapRegistererWith(prometheus.Labels{"process": "worker"}, reg).MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return proxy.Serve(context.Background(), conn, log.With("part", "worker", "worker", strconv.Itoa(os.Getpid())), reg)
}
