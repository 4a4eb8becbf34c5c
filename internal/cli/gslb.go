package cli

import (
	"runtime"

	"anyedge/configs"
	"anyedge/gslb"
	"anyedge/internal/daemon"
	"anyedge/internal/ops"
)

// runGSLB runs a DNS node.
func runGSLB(c *invocation) error {
	file := c.flags.String("config", "", "the node's config `file`")
	state := c.flags.String("state-dir", stateDirectory(), "a `directory` of this node's own, for the log of operators' acts; without one it is in memory only")
	if err := c.parse(0); err != nil {
		return err
	}
	if *file == "" {
		return usagef("--config is required")
	}
	cfg, err := configs.LoadGSLB(*file)
	if err != nil {
		return err
	}
	log, err := daemon.NewLogger(c.errOut, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return err
	}
	log = log.With("node", cfg.Node.Name)
	notifier, err := daemon.NewNotifier()
	if err != nil {
		return err
	}
	store, sealer, _, err := openFleet(cfg.Fleet, log)
	if err != nil {
		return err
	}
	registry := ops.NewRegistry()
	cores := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(cores + gslb.SpareProcessors)
	node, err := gslb.NewNode(gslb.NodeOptions{
		File: *file, Config: cfg, Store: store, Sealer: sealer, Log: log, Registry: registry, Sockets: cores,
		StateDir: *state,
	})
	if err != nil {
		return err
	}
	admin := ops.New(ops.Config{
		Address:   cfg.Admin.Address,
		Name:      cfg.Node.Name,
		Gatherer:  registry,
		Endpoints: append(gslbEndpoints(node), dnssecEndpoints(node)...),
		Page:      gslbPage(cfg.Node.Name, node),
		Log:       log.With("part", "admin"),
	})
	if err := admin.Listen(); err != nil {
		return err
	}
	return serve(log, notifier, node, node.Ready(), node, admin)
}
