package pop

import (
	"context"
	"log/slog"
	"maps"
	"sync"

	"anyedge/configs"
	"anyedge/internal/fleet"
)

// catalog follows the Consul services that the config's pools name.
type catalog struct {
	source *fleet.Catalog // nil without Consul
	wake   chan<- struct{}
	log    *slog.Logger

	mu        sync.Mutex
	wanted    map[configs.ConsulService]bool
	instances map[configs.ConsulService][]fleet.Backend
	changed   chan struct{} // capacity 1: wanted changed
}

func newCatalog(source *fleet.Catalog, wake chan<- struct{}, log *slog.Logger) *catalog {
	return &catalog{
		source: source, wake: wake, log: log,
		instances: make(map[configs.ConsulService][]fleet.Backend),
		changed:   make(chan struct{}, 1),
	}
}

func (c *catalog) String() string { return "service catalog" }

// follow makes the services of cfg's pools the ones to follow.
func (c *catalog) follow(cfg *configs.Pop) {
	wanted := make(map[configs.ConsulService]bool)
	for _, p := range cfg.Pools {
		if p.Consul != nil {
			wanted[*p.Consul] = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if maps.Equal(wanted, c.wanted) {
		return
	}
	c.wanted = wanted
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// backends returns the last known instances of a service, nil if there never
// were any.
func (c *catalog) backends(s configs.ConsulService) []fleet.Backend {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.instances[s]
}

// Run follows what is wanted until ctx ends.
func (c *catalog) Run(ctx context.Context) error {
	following := make(map[configs.ConsulService]context.CancelFunc)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c.mu.Lock()
		wanted := c.wanted
		c.mu.Unlock()
		for s, stop := range following {
			if !wanted[s] {
				stop()
				delete(following, s)
			}
		}
		for s := range wanted {
			if following[s] == nil && c.source != nil {
				ctx, stop := context.WithCancel(ctx)
				following[s] = stop
				wg.Go(func() { c.source.Follow(ctx, s.Service, s.Tag, func(set []fleet.Backend) { c.store(s, set) }) })
			}
		}
		select {
		case <-ctx.Done():
			for _, stop := range following {
				stop()
			}
			return nil
		case <-c.changed:
		}
	}
}

func (c *catalog) store(s configs.ConsulService, set []fleet.Backend) {
	c.mu.Lock()
	c.instances[s] = set
	c.mu.Unlock()
	c.log.Info("backends from the service catalog", "service", s.Service, "tag", s.Tag, "backends", len(set))
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
