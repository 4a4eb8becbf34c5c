package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"anyedge/configs"
	"anyedge/pop/termination"
)

// plan is a snapshot made ready. Making one changes nothing.
type plan struct {
	snapshot   *Snapshot
	table      *table
	connect    *table
	listeners  map[socketKey]configs.Listener
	upstreams  map[string]*upstream
	pools      []poolChange
	terminator *termination.Terminator
	terminates terminationKey
}

// Apply makes s what the worker does. The whole snapshot is checked and built
// first; an error names all that is wrong with it, and then nothing has
// changed. Listeners that are not in s are closed, and their clients asked to
// go; new ones need their socket from [Worker.AddSocket]. Requests under way
// end as they began. Sockets that s does not use are closed.
func (w *Worker) Apply(s *Snapshot) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return errStopped
	}
	p, err := w.planLocked(s)
	if err != nil {
		return fmt.Errorf("snapshot %d: %w", s.Generation, err)
	}
	w.commitLocked(p)
	return nil
}

func (w *Worker) planLocked(s *Snapshot) (*plan, error) {
	p := &plan{snapshot: s, listeners: make(map[socketKey]configs.Listener), upstreams: make(map[string]*upstream)}
	var errs []error
	for i, pool := range s.Pools {
		name := pool.Config.Name
		if p.upstreams[name] != nil {
			errs = append(errs, fmt.Errorf("pools[%d].name: %q is there twice", i, name))
			continue
		}
		change, err := planPool(pool, w.upstreams[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("pools[%d]: %w", i, err))
		}
		p.pools = append(p.pools, change)
		p.upstreams[name] = w.upstreams[name]
		if p.upstreams[name] == nil {
			p.upstreams[name] = newUpstream(name, w.log, w.origins)
		}
	}
	var err error
	if p.table, p.connect, err = compile(s.Routes, p.upstreams); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, w.planListenersLocked(p)...)
	return p, errors.Join(errs...)
}

func (w *Worker) planListenersLocked(p *plan) (errs []error) {
	s := p.snapshot
	terminates := false
	names := make(map[string]bool)
	for i, l := range s.Listeners {
		key := socketKey{l.Name, netip.AddrPortFrom(l.Address.Addr().Unmap(), l.Address.Port())}
		if err := checkListener(l); err != nil {
			errs = append(errs, fmt.Errorf("listeners[%d]: %w", i, err))
		}
		if w.sockets[key] == nil && w.listeners[key] == nil {
			errs = append(errs, fmt.Errorf("listeners[%d]: no socket for %s at %s", i, l.Name, l.Address))
		}
		if slices.Contains(l.Protocols, protocolH3) && w.packets[key] == nil && (w.listeners[key] == nil || w.listeners[key].h3 == nil) {
			errs = append(errs, fmt.Errorf("listeners[%d]: no UDP socket for %s at %s", i, l.Name, l.Address))
		}
		if names[l.Name] {
			errs = append(errs, fmt.Errorf("listeners[%d].name: %q is there twice", i, l.Name))
		}
		names[l.Name] = true
		p.listeners[key] = l
		terminates = terminates || !l.Clear
	}
	if !terminates {
		return errs
	}
	p.terminates = terminationKey{s.Certificates, string(s.ClientCAs), s.MinTLS}
	p.terminator = w.terminator
	if p.terminator == nil || !p.terminates.equal(w.terminates) {
		var err error
		if p.terminator, err = newTerminator(p.terminates, w.metrics.tickets); err != nil {
			errs = append(errs, fmt.Errorf("tls: %w", err))
		}
	}
	return errs
}

// commitLocked puts a plan in force. It cannot fail.
func (w *Worker) commitLocked(p *plan) {
	s := p.snapshot
	for _, change := range p.pools {
		p.upstreams[change.pool.Config.Name].apply(change, w.metrics)
	}
	gone := w.upstreams
	w.upstreams = p.upstreams
	for name := range p.upstreams {
		delete(gone, name)
	}

	if p.terminator != nil {
		p.terminator.SetKeys(s.Tickets)
	}
	w.terminator, w.terminates = p.terminator, p.terminates

	limit := int64(s.MaxConnections)
	if limit == 0 {
		limit = int64(w.meter.descriptorLimit() / 4)
	}
	w.state.Store(&state{
		generation: s.Generation, probeToken: s.ProbeToken, maxConnections: limit,
		drainTimeout: s.DrainTimeout.Std(), logRequests: s.LogRequests, table: p.table, connect: p.connect,
	})
	w.gate.limit.Store(int64(s.BufferMemory))
	w.rtts.on.Store(s.MeasureRTT)
	w.commitListenersLocked(p)

	for name, u := range gone { // no new request finds them now
		if u.stop != nil {
			u.stop()
		}
		u.backs.closeIdle()
		w.metrics.forgetPool(name)
	}
	w.startLocked()
	w.metrics.generation.Set(float64(s.Generation))
	w.log.Info("snapshot applied", "generation", s.Generation, "listeners", len(s.Listeners), "routes", len(s.Routes), "pools", len(s.Pools))
}

func (w *Worker) commitListenersLocked(p *plan) {
	w.retired = slices.DeleteFunc(w.retired, func(c *codec) bool { return c.connections.Load() == 0 })
	for key, l := range w.listeners {
		if _, ok := p.listeners[key]; !ok {
			delete(w.listeners, key)
			l.close()
			if l.h3 != nil {
				l.h3.retire(p.snapshot.DrainTimeout.Std())
			}
			w.retireLocked(l.face.Load().codec)
			w.metrics.forgetListener(key.name)
		}
	}
	for key, config := range p.listeners {
		l := w.listeners[key]
		if l == nil {
			l = &listener{worker: w, name: key.name, socket: w.sockets[key], door: w.doors[key]}
			delete(w.sockets, key)
			delete(w.doors, key)
			w.listeners[key] = l
		}
		next := &face{config: config, tls: tlsConfig(config, p.terminator)}
		if old := l.face.Load(); old == nil {
			next.codec = newCodec(l, config)
		} else if reflect.DeepEqual(old.config, config) {
			next.codec = old.codec // its connections need not go
		} else {
			next.codec = newCodec(l, config)
			w.retireLocked(old.codec)
		}
		changed := l.face.Load() == nil || l.face.Load().codec != next.codec
		l.face.Store(next)
		w.commitQUICLocked(l, key, p.snapshot, changed)
	}
	w.closeSparesLocked()
}

// closeSparesLocked closes the sockets that came and that no listener has.
func (w *Worker) closeSparesLocked() {
	for _, socket := range w.sockets {
		socket.Close()
	}
	clear(w.sockets)
	for _, door := range w.doors {
		door.Close()
	}
	clear(w.doors)
	for _, socket := range w.packets {
		socket.Close()
	}
	clear(w.packets)
}

// commitQUICLocked makes a listener's HTTP/3 what its face says.
func (w *Worker) commitQUICLocked(l *listener, key socketKey, s *Snapshot, changed bool) {
	c := l.face.Load().codec
	switch wanted := c.altSvc != ""; {
	case wanted && l.h3 == nil:
		l.h3 = newQUICListener(l, w.packets[key], s.QUIC, c)
		delete(w.packets, key)
	case wanted && changed:
		l.h3.front.Update(l.frontConfig(s.QUIC, c))
		l.h3.front.Drain()
	case !wanted && l.h3 != nil:
		l.h3.retire(s.DrainTimeout.Std())
		l.h3 = nil
	}
}

// retireLocked asks the clients of a codec to go.
func (w *Worker) retireLocked(c *codec) {
	c.stale.Store(true)
	c.h2.Drain()
	w.retired = append(w.retired, c)
}
