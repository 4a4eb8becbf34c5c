package pop

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/tickets"
	"anyedge/pop/proxy"
)

// configurator gives the worker its state: it joins the config with what the
// fleet says about backends and ticket keys, and sends every change as a whole
// snapshot. A state that the worker refuses changes nothing.
type configurator struct {
	log     *slog.Logger
	metrics *metrics
	worker  applier
	adopted func(context.Context, *configs.Pop, neighbors) // told of a config that came into force
	file    string
	token   string // proves to a probe that our own worker answers
	quic    proxy.QUICKeys

	look    sync.Mutex // guards cfg, changed and open, which others read
	cfg     *configs.Pop
	changed chan struct{} // closed when cfg is replaced
	open    *sockets      // those of cfg; nil before the start

	turn     sync.Mutex // held through a whole change, and to read what follows
	files    *material
	sockets  *sockets
	good     fleetInputs // in force
	bad      fleetInputs // the newest that the worker refused
	draining bool
	number   uint64 // generation of the newest snapshot, in force or refused

	status atomic.Pointer[ConfigStatus]
}

// fleetInputs are the parts of the worker's state that the fleet owns.
type fleetInputs struct {
	inventories inventories
	keys        []tickets.Key
}

// applier is the configurator's view of the supervisor.
type applier interface {
	apply(context.Context, proxy.Apply, *sockets) error
}

// ConfigStatus is what the worker runs on.
type ConfigStatus struct {
	File       string    `json:"file"`
	Generation uint64    `json:"generation"`
	LastGood   time.Time `json:"last_good"`
	// LastError is why the newest change was refused; empty when it was not.
	LastError string    `json:"last_error,omitempty"`
	FailedAt  time.Time `json:"failed_at,omitzero"`
}

func newConfigurator(file string, cfg *configs.Pop, worker applier, log *slog.Logger, m *metrics) *configurator {
	token := make([]byte, 16)
	rand.Read(token)
	var quic proxy.QUICKeys
	rand.Read(quic.Reset[:])
	rand.Read(quic.Token[:])
	c := &configurator{
		log: log, metrics: m, worker: worker, file: file, token: hex.EncodeToString(token), quic: quic,
		cfg: cfg, changed: make(chan struct{}),
	}
	c.status.Store(&ConfigStatus{File: file})
	return c
}

// begin replaces the first config before start.
func (c *configurator) begin(cfg *configs.Pop) {
	c.look.Lock()
	defer c.look.Unlock()
	c.cfg = cfg
}

// start opens the sockets of the first config and gives the worker its first
// state.
func (c *configurator) start(ctx context.Context, in fleetInputs) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.good = in
	files, err := readMaterial(c.cfg)
	if err != nil {
		return err
	}
	set, err := bind(ctx, c.cfg.Listeners, nil, virtualAddresses(c.cfg)...)
	if err != nil {
		return err
	}
	c.files, c.sockets = files, set
	c.look.Lock()
	c.open = set
	c.look.Unlock()
	return c.push(ctx, c.cfg, files, set)
}

// stop closes the sockets.
func (c *configurator) stop() {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.sockets.closeExcept(nil)
}

// reload takes a new config, and what the fleet says about its pools, whole, or
// changes nothing.
func (c *configurator) reload(ctx context.Context, cfg *configs.Pop, in fleetInputs) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	before := c.good
	c.good = in
	err := c.adopt(ctx, cfg)
	if err != nil {
		c.good = before
		c.metrics.reloads.WithLabelValues("refused").Inc()
		c.failed(err)
		return err
	}
	c.metrics.reloads.WithLabelValues("applied").Inc()
	c.adopted(ctx, cfg, c.files.neighbors)
	return nil
}

// refused records a config that did not get as far as reload.
func (c *configurator) refused(err error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.metrics.reloads.WithLabelValues("refused").Inc()
	c.failed(err)
}

func (c *configurator) adopt(ctx context.Context, cfg *configs.Pop) error {
	if err := configs.RestartNeeded(c.cfg, cfg); err != nil {
		return err
	}
	files, err := readMaterial(cfg)
	if err != nil {
		return err
	}
	set, err := bind(ctx, cfg.Listeners, c.sockets, virtualAddresses(cfg)...)
	if err != nil {
		return err
	}
	if err := c.push(ctx, cfg, files, set); err != nil {
		set.closeExcept(c.sockets)
		return err
	}
	c.sockets.closeExcept(set)
	c.files, c.sockets = files, set
	c.bad = fleetInputs{} // was refused together with the old config
	c.look.Lock()
	defer c.look.Unlock()
	c.cfg, c.open = cfg, set
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// config returns the config in force.
func (c *configurator) config() *configs.Pop {
	cfg, _ := c.watch()
	return cfg
}

// watch returns the config in force and a channel that is closed when there is
// another.
func (c *configurator) watch() (*configs.Pop, <-chan struct{}) {
	c.look.Lock()
	defer c.look.Unlock()
	return c.cfg, c.changed
}

// door returns where the door of a listener of the config in force is; invalid if
// it has none.
func (c *configurator) door(l configs.Listener) netip.AddrPort {
	c.look.Lock()
	defer c.look.Unlock()
	return c.open.door(l)
}

// update takes what the fleet says now. It sends the worker a new state only
// if something that concerns it changed, and does not try twice what the worker
// refused.
func (c *configurator) update(ctx context.Context, in fleetInputs) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if reflect.DeepEqual(in, c.good) || reflect.DeepEqual(in, c.bad) {
		return
	}
	before := c.good
	c.good = in
	if err := c.push(ctx, c.cfg, c.files, c.sockets); err != nil {
		c.good = before
		var refused *refusedError
		if errors.As(err, &refused) {
			c.bad = in
		}
		c.failed(fmt.Errorf("from the fleet: %w", err))
	}
}

// setDraining asks the worker's clients to go, or lets them stay again.
func (c *configurator) setDraining(ctx context.Context, draining bool) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.draining == draining {
		return
	}
	c.draining = draining
	if err := c.push(ctx, c.cfg, c.files, c.sockets); err != nil {
		c.draining = !draining // tried again at the next call
		c.failed(err)
	}
}

// push sends the whole state. The caller holds turn.
func (c *configurator) push(ctx context.Context, cfg *configs.Pop, files *material, set *sockets) error {
	s := buildSnapshot(cfg, files, c.good.inventories, c.good.keys)
	c.number++
	s.Generation, s.ProbeToken, s.QUIC = c.number, c.token, c.quic
	if err := c.worker.apply(ctx, proxy.Apply{Snapshot: s, Draining: c.draining}, set); err != nil {
		return err
	}
	now := time.Now()
	c.metrics.configAge.Set(float64(now.Unix()))
	c.metrics.generation.Set(float64(s.Generation))
	status := *c.status.Load()
	status.Generation, status.LastGood, status.LastError, status.FailedAt = s.Generation, now, "", time.Time{}
	c.status.Store(&status)
	return nil
}

// failed records and logs a change that was refused.
func (c *configurator) failed(err error) {
	c.log.Error("change refused, the last good state stays in force", "error", err)
	status := *c.status.Load()
	status.LastError, status.FailedAt = err.Error(), time.Now()
	c.status.Store(&status)
}

// inventoryOf picks what a config's pools ask of the fleet and the catalog.
func inventoryOf(cfg *configs.Pop, view *fleet.View, services *catalog) inventories {
	inv := make(inventories)
	for _, p := range cfg.Pools {
		switch {
		case p.Inventory != "":
			inv[p.Name] = view.Inventory[p.Inventory]
		case p.Consul != nil:
			inv[p.Name] = services.backends(*p.Consul)
		}
	}
	return inv
}
