// Package proxy is the worker of a node: the data plane that serves clients.
//
// An agent gives the worker its listening sockets and whole snapshots of what
// to do; the worker reports vitals. [Serve] is the worker's side of that link,
// and [Worker] is what it drives. The worker talks to clients and origins and
// to nobody else.
//
// # Life of a request
//
// A listener accepts a connection if the ceiling allows, terminates TLS and
// hands it to the codec that was agreed on ([http1.Front] or [http2.Front]);
// [http3.Front] has a UDP socket of its own.
// The codec makes an [exchange.Exchange] of each request.
// The worker takes the connection's fields off, finds the route, replaces what
// the client said about itself by what is known, picks a backend and sends the
// request on. A backend that cannot be connected to is not the end: up to two
// others are tried, because nothing was sent. The response streams back, and
// one outcome is recorded.
//
// # Concurrency
//
// All methods of Worker may be called by several goroutines at once. What a
// request needs is in one immutable state behind an atomic pointer, loaded once
// per request; requests that began before a new snapshot end under the old one.
// Apply, Drain, Undrain, AddSocket and the end of Run take turns on one lock
// that no request takes.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/origin"
	"anyedge/pop/proxy/http2"
	"anyedge/pop/proxy/http3"
	"anyedge/pop/proxy/tcp"
	"anyedge/pop/termination"
)

// lastCall is how long a worker that stops leaves idle HTTP/1.1 connections
// open: a client may just be sending its next request on one, and is then
// asked, in the response, to make it the last.
const lastCall = 5 * time.Second

var errStopped = errors.New("the worker is stopping")

// Worker is the data plane of a node.
type Worker struct {
	log     *slog.Logger
	metrics *metrics
	floods  *http2.Metrics
	quic    *http3.Metrics
	origins *origin.Metrics
	meter   *meter

	state    atomic.Pointer[state] // nil before the first snapshot; never mutated after Store
	draining atomic.Bool
	conns    conns
	lot      *tcp.Lot // of idle connections
	gate     gate
	shedder  shedder
	rtts     rttSampler
	inFlight atomic.Int64
	requests atomic.Uint64
	sequence atomic.Uint64

	// mu guards what follows.
	mu         sync.Mutex
	sockets    map[socketKey]net.Listener // not used by a listener
	doors      map[socketKey]net.Listener // likewise
	packets    map[socketKey]*net.UDPConn // likewise
	listeners  map[socketKey]*listener
	retired    []*codec // of listeners that changed or are gone, until their connections ended
	upstreams  map[string]*upstream
	terminator *termination.Terminator // nil without TLS
	terminates terminationKey
	run        *run // nil unless Run serves
	stopped    bool
}

// state is a snapshot in force.
type state struct {
	generation     uint64
	probeToken     string
	maxConnections int64
	drainTimeout   time.Duration
	logRequests    bool
	table          *table
	connect        *table // of the method CONNECT
}

// run is what Run started.
type run struct {
	ctx     context.Context // ends when the drain is over
	accepts sync.WaitGroup  // accept loops
	tasks   sync.WaitGroup  // connections and pools
}

type socketKey struct {
	name    string
	address netip.AddrPort
}

// New returns a worker without a snapshot. reg may be nil.
func New(log *slog.Logger, reg *prometheus.Registry) *Worker {
	var registerer prometheus.Registerer
	if reg != nil {
		registerer = reg
	}
	return &Worker{
		log:       log,
		metrics:   newMetrics(registerer),
		origins:   origin.NewMetrics(registerer),
		floods:    http2.NewMetrics(registerer),
		quic:      http3.NewMetrics(registerer),
		meter:     newMeter("/"),
		shedder:   shedder{began: time.Now()},
		rtts:      rttSampler{kernel: kernelRTT},
		conns:     newConns(),
		lot:       tcp.NewLot(),
		sockets:   make(map[socketKey]net.Listener),
		doors:     make(map[socketKey]net.Listener),
		packets:   make(map[socketKey]*net.UDPConn),
		listeners: make(map[socketKey]*listener),
		upstreams: make(map[string]*upstream),
	}
}

// AddSocket gives the worker a listening socket for the listener of that name
// at the socket's address, and takes it over. A second one for the same
// listener is closed: it is a copy of the first.
func (w *Worker) AddSocket(name string, l net.Listener) {
	key := socketKey{name, unmap(l.Addr())}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || w.sockets[key] != nil || w.listeners[key] != nil {
		l.Close()
		return
	}
	w.sockets[key] = l
}

// AddDoor gives the worker another listening socket for the listener of that name
// and service address, one that is on loopback, and takes it over. Through it the
// agent's probes come in while the service address is on another host. What comes
// in meets all that other connections of the listener meet, and the door is shut
// when the worker no longer accepts on the service address.
func (w *Worker) AddDoor(name string, service netip.AddrPort, door net.Listener) {
	key := socketKey{name, service}
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.listeners[key]; w.stopped || w.doors[key] != nil || l != nil && l.door != nil {
		door.Close()
		return
	}
	w.doors[key] = door
}

// AddPacketSocket gives the worker a UDP socket for HTTP/3, as AddSocket does
// with a listening one.
func (w *Worker) AddPacketSocket(name string, conn *net.UDPConn) {
	key := socketKey{name, unmap(conn.LocalAddr())}
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.listeners[key]; w.stopped || w.packets[key] != nil || l != nil && l.h3 != nil {
		conn.Close()
		return
	}
	w.packets[key] = conn
}

// Drain asks clients to go, politely: HTTP/1.1 responses carry "Connection:
// close", HTTP/2 connections get GOAWAY. Whoever connects is still served.
func (w *Worker) Drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drainLocked()
}

func (w *Worker) drainLocked() {
	if !w.draining.Swap(true) {
		w.metrics.draining.Set(1)
		w.log.Info("drain began", "connections", w.conns.count())
		for _, l := range w.listeners {
			l.face.Load().codec.h2.Drain()
			if l.h3 != nil {
				l.h3.front.Drain()
			}
		}
	}
}

// Undrain ends a drain. Who was asked to go still goes.
func (w *Worker) Undrain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped && w.draining.Swap(false) {
		w.metrics.draining.Set(0)
		w.log.Info("drain ended", "connections", w.conns.count())
	}
}

// Run serves what Apply says until ctx ends. Then it closes the listeners at
// once, so that connections go to whoever shares their sockets, drains for the
// drain timeout at most, closes what is left and joins all it started. It
// returns nil. It may be called once, before or after the first Apply.
func (w *Worker) Run(ctx context.Context) error {
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	r := &run{ctx: serving}
	w.mu.Lock()
	w.run = r
	w.startLocked()
	w.mu.Unlock()
	lot := make(chan struct{})
	go func() {
		defer close(lot)
		if err := w.lot.Run(serving); err != nil {
			w.log.Warn("idle connections cost more from here on", "error", err)
		}
	}()

	<-ctx.Done()
	timeout := w.stop()
	r.accepts.Wait()
	if !w.awaitQuiet(timeout) {
		w.log.Warn("drain timeout passed, connections closed", "connections", w.conns.count(), "in_flight", w.inFlight.Load())
	}
	end()
	<-lot // those in it are not to be closed before they have left
	w.conns.closeAll()
	r.tasks.Wait()
	return nil
}

// startLocked starts the listeners and pools that do not run yet, if Run does.
func (w *Worker) startLocked() {
	r := w.run
	if r == nil {
		return
	}
	for _, u := range w.upstreams {
		if u.stop == nil {
			var ctx context.Context
			ctx, u.stop = context.WithCancel(r.ctx)
			r.tasks.Go(func() { u.run(ctx) })
		}
	}
	for _, l := range w.listeners {
		if !l.started {
			l.started = true
			l.start(r)
		}
		if l.h3 != nil && l.h3.stop == nil {
			l.h3.start(l, r)
		}
	}
}

// stop closes the listeners and asks all clients to go. It returns how long
// they have for it.
func (w *Worker) stop() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.drainLocked()
	w.closeSparesLocked()
	for _, l := range w.listeners {
		l.close()
	}
	if s := w.state.Load(); s != nil {
		return s.drainTimeout
	}
	return 0
}

// awaitQuiet waits until no connection is left, and returns whether that was
// so before the timeout.
func (w *Worker) awaitQuiet(timeout time.Duration) bool {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	last := time.NewTimer(min(lastCall, timeout/2))
	defer last.Stop()
	for w.conns.count() > 0 {
		select {
		case <-w.conns.quiet:
		case <-last.C:
			w.closeIdle()
		case <-deadline.C:
			return false
		}
	}
	return true
}

// closeIdle closes the connections that wait for a client's next request, and
// tells HTTP/2 clients that connected during the drain to go.
func (w *Worker) closeIdle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.listeners {
		l.face.Load().codec.dismiss()
		if l.h3 != nil {
			l.h3.front.CloseIdle()
		}
	}
	for _, c := range w.retired {
		c.dismiss()
	}
}
