package gslb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"anyedge/configs"
	"anyedge/gslb/steer"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/fleet"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Networks that no agent has measured yet are known to the DNS first: it is asked.
// Every DNS node sees other clients, so each publishes what it was asked, and all
// plan by what all of them published.

const (
	// askStride is how many queries for steered names one that is counted stands
	// for: counting takes a lock and a copy, a hundred times what a look at a random
	// number does.
	askStride = 64
	// askDrain is the pace of counting what was noted, of which there are at most
	// askMost at a time: as many as a million queries a second come to.
	askDrain = time.Second
	askMost  = 1 << 14
	// askEvery is the pace of publishing, and askKeep how long it outlasts the node.
	askEvery = time.Minute
	askKeep  = 4 * rtt.DefaultHalfLife
	// askTimeout bounds publishing.
	askTimeout = 10 * time.Second
	// askNetworks bounds what is counted, each network once for every PoP.
	askNetworks = 1 << 16
	// askLeast is how many queries a network has made when it is named: those of
	// fewer are put together.
	askLeast = 8 * askStride
)

// sampledQueries are a sample of who asked for steered names, and where they were sent.
type sampledQueries struct {
	mu      sync.Mutex
	noted   []note
	dropped int
}

// note is one query.
type note struct {
	client netip.Prefix
	pop    string
}

// sampled reports whether a query with this random value is one that is noted.
func sampled(random uint64) bool { return random%askStride == 0 }

// note notes a query that was sampled. Answers with several PoPs say nothing about
// any of them.
func (a *sampledQueries) note(client netip.Prefix, reply *steer.Reply) {
	if len(reply.Pops) != 1 || client.Bits() <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.noted) == askMost {
		a.dropped++
		return
	}
	a.noted = append(a.noted, note{client, reply.Pops[0]})
}

// take returns what was noted since, in the memory of used.
func (a *sampledQueries) take(used []note) (noted []note, dropped int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	noted, dropped = a.noted, a.dropped
	a.noted, a.dropped = used[:0], 0
	return noted, dropped
}

// askClient is who a query of the fast path is answered for.
func (r *udpReader) askClient(from netip.Addr) netip.Prefix {
	if r.query.subnet != nil {
		return r.query.client
	}
	return netip.PrefixFrom(from, from.BitLen())
}

// demandTeller publishes what a node was asked. It has one goroutine.
type demandTeller struct {
	node  *Node
	store fleet.Store
	m     *askMetrics

	// Of the goroutine:
	counter *rtt.QueryCounter
	used    []note
	session fleet.Session // empty while there is none
	told    bool
	failing bool
}

func newDemandTeller(n *Node, store fleet.Store, reg prometheus.Registerer) *demandTeller {
	return &demandTeller{node: n, store: store, m: newAskMetrics(reg), counter: rtt.NewQueryCounter(rtt.DefaultHalfLife, askNetworks)}
}

// run counts and publishes until ctx ends.
func (t *demandTeller) run(ctx context.Context) {
	drain, tell := time.NewTicker(askDrain), time.NewTicker(askEvery)
	defer drain.Stop()
	defer tell.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-drain.C:
			t.count()
		case <-tell.C:
			cfg := t.node.config()
			if !slices.ContainsFunc(cfg.Names, func(c configs.SteeredName) bool { return c.Planned() }) {
				continue // nobody has a use for it
			}
			t.logged(ctx, t.publish(ctx, cfg.Node.Name, time.Now()))
		}
	}
}

// count counts what was noted.
func (t *demandTeller) count() {
	noted, dropped := t.node.server.asked.take(t.used)
	for _, n := range noted {
		t.counter.Add(n.client, n.pop, askStride)
	}
	t.used = noted
	t.m.noted.Add(float64(len(noted)))
	t.m.dropped.Add(float64(dropped))
}

// logged logs when publishing begins or ceases to fail.
func (t *demandTeller) logged(ctx context.Context, err error) {
	if ctx.Err() != nil || (err != nil) == t.failing {
		return
	}
	if t.failing = err != nil; t.failing {
		t.node.log.Warn("queries by network not published, retrying", "error", err)
	} else {
		t.node.log.Info("queries by network published")
	}
}

// publish tells the fleet, from the first time on that there is something to tell.
func (t *demandTeller) publish(ctx context.Context, node string, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var s rtt.QuerySnapshot
	var data []byte
	var err error
	background(func() { // merging tens of thousands of networks takes a while
		s = t.counter.Snapshot(now, askLeast)
		data, err = s.Encode(nil, fleet.MaxQueries)
	})
	if err != nil || len(s.Queries) == 0 && !t.told {
		return err
	}
	if t.session, err = t.live(ctx, node); err != nil {
		return err
	}
	err = t.node.fleet.PublishQueries(ctx, t.session, fleet.Queries{Node: node, At: now, Data: data})
	if errors.Is(err, fleet.ErrSession) {
		t.session = ""
	}
	if err != nil {
		return err
	}
	t.told = true
	t.m.networks.Set(float64(len(s.Queries)))
	t.m.bytes.Set(float64(len(data)))
	return nil
}

// live returns the session, renewed, or a new one.
func (t *demandTeller) live(ctx context.Context, node string) (fleet.Session, error) {
	if t.session != "" {
		if err := t.store.RenewSession(ctx, t.session); !errors.Is(err, fleet.ErrSession) {
			return t.session, err
		}
	}
	s, err := t.store.NewSession(ctx, node+" queries", askKeep)
	if err != nil {
		return "", fmt.Errorf("session: %w", err)
	}
	return s, nil
}

// askMetrics are of what the node was asked.
type askMetrics struct {
	noted, dropped  prometheus.Counter
	networks, bytes prometheus.Gauge
}

func newAskMetrics(reg prometheus.Registerer) *askMetrics {
	f := promauto.With(reg)
	return &askMetrics{
		noted: f.NewCounter(prometheus.CounterOpts{Name: "anyedge_demand_queries_total",
			Help: "Queries for steered names that were counted by client network; each stands for 64."}),
		dropped: f.NewCounter(prometheus.CounterOpts{Name: "anyedge_demand_dropped_queries_total",
			Help: "Queries that were to be counted and came too fast."}),
		networks: f.NewGauge(prometheus.GaugeOpts{Name: "anyedge_demand_published_networks",
			Help: "Networks in the last publication, once for each PoP they were sent to, small ones put together."}),
		bytes: f.NewGauge(prometheus.GaugeOpts{Name: "anyedge_demand_published_bytes",
			Help: "Size of the last publication."}),
	}
}
