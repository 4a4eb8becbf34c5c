package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// The pace of following the store. A blocked Watch fails slowly or never when
// the other side stops without a word, so the store is also asked something
// small all the time, and its silence counts as loss. Loss shows in the View
// after pulseEvery plus pulseTimeout at the latest.
const (
	pulseEvery   = 400 * time.Millisecond
	pulseTimeout = 800 * time.Millisecond

	retryFirst = 100 * time.Millisecond // pause after a failure; doubled by each one more
	retryMost  = 2 * time.Second

	// A fleet's reports change all the time. After each reading the next one
	// waits a little, so that one reading brings many changes.
	reportsPace = 200 * time.Millisecond
	statePace   = 50 * time.Millisecond
	planPace    = time.Second
	// Round-trip times and queries are published once a minute, and are much to read.
	rttPace = 20 * time.Second
)

// staleLister is a Store that can read without its leader. What it reads is old
// by an unknown amount, but better than nothing for a node that starts now.
type staleLister interface {
	ListStale(ctx context.Context, prefix string) ([]Entry, error)
}

// Run keeps the View current until ctx is done, and returns nil. A store that
// is out of reach, from the start or later, is tried again for ever. Run must
// not be called twice at the same time.
func (f *Fleet) Run(ctx context.Context) error {
	k := newKeeper(f)
	for failures := 0; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := f.ask(ctx)
		if err == nil {
			err = f.follow(ctx, k)
		} else {
			f.fillStale(ctx, k)
		}
		if ctx.Err() != nil {
			break
		}
		k.lost(err)
		if time.Since(began) > retryMost {
			failures = 0
		}
		_ = sleep(ctx, backoff(failures)) // the loop sees that ctx is done
	}
	return nil
}

// ask finds out whether the store answers.
func (f *Fleet) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pulseTimeout)
	defer cancel()
	_, err := f.store.Get(ctx, keyLeases)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	now := time.Now()
	f.metrics.contact.Store(&now)
	return nil
}

// fillStale reads what nobody has told us yet from a store without a leader.
func (f *Fleet) fillStale(ctx context.Context, k *keeper) {
	store, ok := f.store.(staleLister)
	if !ok {
		return
	}
	for _, src := range k.sources {
		if k.known(src) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, pulseTimeout)
		if entries, err := store.ListStale(ctx, src.prefix); err == nil && len(entries) > 0 {
			k.take(src, entries, false)
		}
		cancel()
	}
}

// follow streams all sources and takes the store's pulse until one of them, but
// for those aside, fails or ctx is done, and returns the first error. They end together: a
// stream may wait on a connection whose other end is gone, or wait for an index
// that a store which was replaced will not reach for long.
func (f *Fleet) follow(ctx context.Context, k *keeper) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	for _, src := range k.sources {
		running.Go(func() {
			if src.aside {
				f.streamAside(ctx, k, src)
			} else {
				stop(f.stream(ctx, k, src))
			}
		})
	}
	running.Go(func() { stop(f.pulse(ctx)) })
	running.Wait()
	return context.Cause(ctx)
}

// pulse asks the store something small, over and over.
func (f *Fleet) pulse(ctx context.Context) error {
	for {
		if err := sleep(ctx, jitter(pulseEvery)*2/3); err != nil {
			return err
		}
		if err := f.ask(ctx); err != nil {
			return err
		}
	}
}

// stream reads src, then waits for changes, until there is an error.
func (f *Fleet) stream(ctx context.Context, k *keeper, src *source) error {
	entries, index, err := f.store.List(ctx, src.prefix)
	for err == nil {
		k.take(src, entries, true)
		if err = sleep(ctx, src.pace); err != nil {
			break
		}
		entries, index, err = f.store.Watch(ctx, src.prefix, index)
	}
	return err
}

// streamAside streams src, again and again until ctx is done: what cannot be read
// of it costs nothing else.
func (f *Fleet) streamAside(ctx context.Context, k *keeper, src *source) {
	for failures := 0; ; failures++ {
		err := f.stream(ctx, k, src)
		if sleep(ctx, backoff(failures)) != nil {
			return
		}
		if failures == 0 {
			f.log.Warn("part of the fleet store not read, retrying", "prefix", src.prefix, "error", err)
		}
	}
}

// backoff is the pause after a failure with this many before it.
func backoff(failures int) time.Duration {
	return jitter(min(retryFirst<<min(failures, 10), retryMost))
}

// keeper builds Views from what the store says. It owns Fleet.view.
type keeper struct {
	fleet   *Fleet
	sources []*source

	mu        sync.Mutex // guards the rest and the mutable part of sources
	connected bool
	silent    bool      // the loss has been logged
	since     time.Time // when connected last became true
	lostSince time.Time
	outages   []outage // over before lostSince; a View shares it
}

// maxOutages bounds the outages that are remembered. A report's freshness hangs
// on those since it last changed only, which takes seconds.
const maxOutages = 16

// source is one prefix that is followed.
type source struct {
	prefix string
	pace   time.Duration
	kept   map[string]kept // by key, as of the last reading; nil before the first
	fresh  bool            // read since the store was last lost
	aside  bool            // a View is connected without it, and stays so when it fails
	part   func(*View, []kept)
}

// kept is what became of one entry.
type kept struct {
	entry Entry
	good  any       // the last value that was valid; nil if none ever was
	at    time.Time // when good came
	bad   bool      // the present value is not valid
}

func newKeeper(f *Fleet) *keeper {
	k := &keeper{
		fleet: f,
		sources: []*source{
			{prefix: prefixReports, pace: reportsPace, part: reportsPart},
			{prefix: prefixState, pace: statePace, part: statePart},
			{prefix: keyPlan, pace: planPace, part: planPart},
		},
		lostSince: f.View().LostSince,
	}
	if f.validKeys != nil {
		k.sources = append(k.sources, &source{prefix: prefixZoneKeys, pace: zoneKeysPace, part: zoneKeysPart})
	}
	if f.followRTT {
		k.sources = append(k.sources, &source{prefix: prefixRTT, pace: rttPace, part: rttPart, aside: true},
			&source{prefix: prefixQueries, pace: rttPace, part: queriesPart, aside: true})
	}
	return k
}

// known reports whether src has been read at all.
func (k *keeper) known(src *source) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return src.kept != nil
}

// lost notes that the store did not answer. Everything known stays.
func (k *keeper) lost(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, src := range k.sources {
		src.fresh = false
	}
	if !k.silent {
		k.silent = true
		k.fleet.log.Warn("fleet store out of reach, keeping what is known", "error", err)
	}
	if !k.connected {
		return
	}
	k.outages = append(slices.Clone(k.outages), outage{k.lostSince, k.since})
	k.outages = k.outages[max(0, len(k.outages)-maxOutages):]
	k.connected, k.lostSince = false, time.Now()
	k.fleet.metrics.connected.Set(0)
	k.fleet.metrics.disconnects.Inc()
	view := *k.fleet.View()
	k.publish(&view)
}

// take takes in all that src holds now, in order of key. Of an entry that has
// not changed it keeps what it made of it before. Entries read without the
// leader are not fresh: they do not make the View connected.
func (k *keeper) take(src *source, entries []Entry, fresh bool) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := len(entries) != len(src.kept) || src.kept == nil
	next := make(map[string]kept, len(entries))
	list := make([]kept, len(entries))
	for i, e := range entries {
		item, ok := src.kept[e.Key]
		if !ok || item.entry.Index != e.Index || item.entry.Session != e.Session || !bytes.Equal(item.entry.Value, e.Value) {
			changed = true
			item = k.decode(e, item, now)
		}
		next[e.Key], list[i] = item, item
	}
	src.kept = next
	src.fresh = src.fresh || fresh
	connecting := !k.connected && !slices.ContainsFunc(k.sources, func(s *source) bool { return !s.fresh && !s.aside })
	if connecting {
		k.connected, k.silent, k.since = true, false, now
		k.fleet.metrics.connected.Set(1)
		k.fleet.log.Info("fleet store reached", "after", now.Sub(k.lostSince).Round(time.Millisecond))
	}
	if fresh {
		k.fleet.metrics.contact.Store(&now)
	}
	if !changed && !connecting {
		return
	}
	view := *k.fleet.View()
	if changed {
		src.part(&view, list)
		view.Rejected = k.rejected()
	}
	k.publish(&view)
}

// publish replaces the View by a changed copy of it.
func (k *keeper) publish(view *View) {
	view.Connected, view.ConnectedSince, view.LostSince = k.connected, k.since, k.lostSince
	view.outages = k.outages
	view.changed = make(chan struct{})
	before := k.fleet.view.Swap(view)
	close(before.changed)
}

func (k *keeper) rejected() []string {
	var keys []string
	for _, src := range k.sources {
		for key, item := range src.kept {
			if item.bad {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return keys
}

// Kinds of values, as the metric of rejected ones names them.
const (
	kindReport    = "report"
	kindDrain     = "drain"
	kindOverride  = "override"
	kindLeases    = "leases"
	kindInventory = "inventory"
	kindRing      = "ring"
	kindRollout   = "rollout"
	kindRTT       = "rtt"
	kindQueries   = "queries"
	kindPlan      = "plan"
	kindZoneKeys  = "zone_keys"
)

var kinds = []string{kindReport, kindDrain, kindOverride, kindLeases, kindInventory, kindRing, kindRollout, kindRTT, kindQueries, kindPlan, kindZoneKeys}

// decode makes a value of e. If it is not valid, the last good one stays.
func (k *keeper) decode(e Entry, before kept, now time.Time) kept {
	kind, good, err := k.fleet.decode(e)
	if err != nil {
		k.fleet.metrics.rejected.WithLabelValues(kind).Inc()
		k.fleet.log.Warn("value in the fleet store rejected, keeping the last good one",
			"key", e.Key, "index", e.Index, "error", err)
		return kept{entry: e, good: before.good, at: before.at, bad: true}
	}
	return kept{entry: e, good: good, at: now}
}

// holderProof is the value of a holder key. What it proves is in the entry; this
// is for operators.
type holderProof struct {
	Node    string  `json:"node"`
	Pop     string  `json:"pop"`
	Session Session `json:"session"`
}

// rolloutDoc is a rollout as it is stored.
type rolloutDoc []byte

// ringAt is a ring and its index.
type ringAt struct {
	ring  []byte
	index uint64
}

// decode returns what e holds. Keys of no kind known here are another
// version's; they are passed over.
func (f *Fleet) decode(e Entry) (kind string, value any, err error) {
	if node, ok := strings.CutPrefix(e.Key, prefixReports); ok {
		value, err = decodeReport(node, e.Value)
		return kindReport, value, err
	}
	if rest, ok := strings.CutPrefix(e.Key, prefixDrains); ok {
		scope, name, _ := strings.Cut(rest, "/")
		value, err = decodeDrain(scope, name, e.Value)
		return kindDrain, value, err
	}
	if strings.HasPrefix(e.Key, prefixPrefixDrains) {
		value, err = decodePrefixDrain(e.Key, e.Value)
		return kindDrain, value, err
	}
	if strings.HasPrefix(e.Key, prefixOverrides) {
		value, err = decodeOverride(e.Key, e.Value)
		return kindOverride, value, err
	}
	if strings.HasPrefix(e.Key, prefixSteerOverrides) {
		value, err = decodeSteerOverride(e.Key, e.Value)
		return kindOverride, value, err
	}
	if pool, ok := strings.CutPrefix(e.Key, prefixInventory); ok {
		if err := checkName("pool", pool); err != nil {
			return kindInventory, nil, err
		}
		value, err = decodeInventory(e.Value)
		return kindInventory, value, err
	}
	if node, ok := strings.CutPrefix(e.Key, prefixRTT); ok {
		value, err = f.decodeRTT(node, e.Value)
		return kindRTT, value, err
	}
	if node, ok := strings.CutPrefix(e.Key, prefixQueries); ok {
		value, err = f.decodeQueries(node, e.Value)
		return kindQueries, value, err
	}
	if zone, ok := strings.CutPrefix(e.Key, prefixZoneKeys); ok {
		value, err = f.openZoneKeys(zone, e)
		return kindZoneKeys, value, err
	}
	switch {
	case strings.HasPrefix(e.Key, prefixHolders):
		return "", holderProof{}, nil
	case e.Key == keyLeases:
		value, err = decodeLeases(e.Value)
		return kindLeases, value, err
	case e.Key == keyPlan:
		value, err = decodePlan(e.Value)
		return kindPlan, value, err
	case e.Key == keyRollout:
		return kindRollout, rolloutDoc(e.Value), f.validRollout(e.Value)
	case e.Key == keyRing:
		ring, err := f.openRing(e.Value)
		if err != nil {
			return kindRing, nil, fmt.Errorf("ring: %w", err)
		}
		return kindRing, ringAt{ring, e.Index}, nil
	}
	return "", nil, nil
}

// reportsPart fills in what comes from prefixReports.
func reportsPart(v *View, list []kept) {
	v.Reports = make([]Seen, 0, len(list))
	for _, item := range list {
		if r, ok := item.good.(Report); ok {
			v.Reports = append(v.Reports, Seen{Report: r, At: item.at})
		}
	}
}

// statePart fills in what comes from prefixState.
func statePart(v *View, list []kept) {
	v.Overrides, v.SteerOverrides = nil, nil
	v.Drains, v.PrefixDrains, v.Leases, v.Ring, v.RingIndex, v.Rollout = nil, nil, Leases{}, nil, 0, nil
	v.Inventory = make(map[string][]Backend)
	holders := make(map[string]Entry)
	var document Leases
	v.leasesIndex, v.damaged = 0, false
	for _, item := range list {
		if item.entry.Key == keyLeases {
			v.leasesIndex, v.damaged = item.entry.Index, item.bad
		}
		switch good := item.good.(type) {
		case Drain:
			if good.Prefix.IsValid() {
				v.PrefixDrains = append(v.PrefixDrains, good)
			} else {
				v.Drains = append(v.Drains, good)
			}
		case Override:
			v.Overrides = append(v.Overrides, good)
		case SteerOverride:
			v.SteerOverrides = append(v.SteerOverrides, good)
		case []Backend:
			v.Inventory[strings.TrimPrefix(item.entry.Key, prefixInventory)] = good
		case Leases:
			document = good
		case ringAt:
			v.Ring, v.RingIndex = good.ring, good.index
		case rolloutDoc:
			v.Rollout = good
		case holderProof:
			holders[strings.TrimPrefix(item.entry.Key, prefixHolders)] = item.entry
		}
	}
	v.Leases.Freeze = document.Freeze
	for _, l := range document.Holders {
		if l.heldBy(holders[l.Node]) {
			v.Leases.Holders = append(v.Leases.Holders, l)
		}
	}
	for _, l := range document.Waiting {
		if l.heldBy(holders[l.Node]) {
			v.Leases.Waiting = append(v.Leases.Waiting, l)
		}
	}
	slices.SortFunc(v.Drains, compareDrains)
	slices.SortFunc(v.PrefixDrains, comparePrefixDrains)
	slices.SortFunc(v.Overrides, compareOverrides)
	slices.SortFunc(v.SteerOverrides, compareSteerOverrides)
}
