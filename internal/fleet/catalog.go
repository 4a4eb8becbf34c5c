package fleet

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// catalogPace is the least time between two readings of one service.
const catalogPace = 200 * time.Millisecond

// metaZone names a backend's failure domain in the metadata of the service
// instance, or else of its node.
const metaZone = "zone"

// Catalog reads backends from Consul's service catalog.
type Catalog struct {
	client *api.Client
	log    *slog.Logger
}

// Catalog returns the service catalog behind c.
func (c *Consul) Catalog(log *slog.Logger) *Catalog { return &Catalog{client: c.client, log: log} }

// Follow calls update with the backends of a service, at first and whenever
// they change, until ctx is done; then it returns nil. A tag limits them to the
// instances that carry it.
//
// The backends are the instances whose checks all pass, or that have none, in
// order of address. Weight is the instance's weight for passing; zone is "zone"
// in its metadata or its node's. The set can be empty: whether that is to be
// believed is the caller's to judge. A set that is not valid as a whole, such as one with
// a host name for an address, is logged once and changes nothing. While Consul
// is out of reach nothing changes either. update is called from one goroutine,
// and must not change the slice.
func (c *Catalog) Follow(ctx context.Context, service, tag string, update func([]Backend)) error {
	log := c.log.With("service", service, "tag", tag)
	var last []Backend // nil before the first update
	var index uint64
	silent, told := false, ""
	for failures := 0; ctx.Err() == nil; {
		entries, now, err := c.read(ctx, service, tag, index)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if !silent {
				log.Warn("service catalog out of reach, keeping the backends", "error", err)
				silent = true
			}
			_ = sleep(ctx, backoff(failures)) // the loop sees that ctx is done
			failures, index = failures+1, 0
			continue
		}
		if silent {
			log.Info("service catalog reached")
		}
		failures, silent, index = 0, false, now

		set, err := catalogSet(entries)
		switch {
		case err != nil:
			if err.Error() != told {
				told = err.Error()
				log.Warn("backends in the service catalog rejected, keeping the last good ones", "error", err)
			}
		case last == nil || !slices.Equal(last, set):
			last, told = set, ""
			update(set)
		default:
			told = ""
		}
		_ = sleep(ctx, catalogPace) // the loop sees that ctx is done
	}
	return nil
}

func (c *Catalog) read(ctx context.Context, service, tag string, after uint64) ([]*api.ServiceEntry, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, watchWait+watchWait/8) // as in Consul.Watch
	defer cancel()
	q := &api.QueryOptions{WaitIndex: after, WaitTime: watchWait}
	entries, meta, err := c.client.Health().Service(service, tag, true, q.WithContext(ctx))
	if err != nil {
		return nil, 0, err
	}
	return entries, meta.LastIndex, nil
}

// catalogSet turns instances into a valid set.
func catalogSet(entries []*api.ServiceEntry) ([]Backend, error) {
	set := make([]Backend, 0, len(entries))
	for _, e := range entries {
		host := cmp.Or(e.Service.Address, e.Node.Address)
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return nil, fmt.Errorf("instance %s: %w", e.Service.ID, err)
		}
		if e.Service.Port < 1 || e.Service.Port > 65535 {
			return nil, fmt.Errorf("instance %s: %d is not a port", e.Service.ID, e.Service.Port)
		}
		set = append(set, Backend{
			Address: netip.AddrPortFrom(addr, uint16(e.Service.Port)),
			Weight:  e.Service.Weights.Passing,
			Zone:    cmp.Or(e.Service.Meta[metaZone], e.Node.Meta[metaZone]),
		})
	}
	// The same address can be registered on two nodes, or twice on one. It is
	// one backend.
	slices.SortStableFunc(set, func(a, b Backend) int {
		return cmp.Or(a.Address.Compare(b.Address), strings.Compare(a.Zone, b.Zone), b.Weight-a.Weight)
	})
	set = slices.CompactFunc(set, func(a, b Backend) bool { return a.Address == b.Address })
	return normalize(set)
}
