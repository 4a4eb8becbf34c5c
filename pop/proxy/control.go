package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"anyedge/internal/health"
	"anyedge/origin"
	"anyedge/pop/link"
	"anyedge/pop/proxy/heap"
)

// The kinds of messages between agent and worker. The agent sends the first
// two, and [KindShed]; the worker answers with the others, and sends [KindRTT].
const (
	KindApply   link.Kind = "apply"   // [Apply], with its sockets' descriptors
	KindGather  link.Kind = "gather"  // [Gather]
	KindApplied link.Kind = "applied" // [Applied]
	KindVitals  link.Kind = "vitals"  // [Vitals]
	KindMetrics link.Kind = "metrics" // [Metrics]
)

// Apply is the whole state that the agent wants the worker to be in.
type Apply struct {
	Snapshot *Snapshot `json:"snapshot"`
	// Draining asks clients to go: see [Worker.Drain].
	Draining bool `json:"draining"`
	// Sockets name the descriptors that come with the message, in order. The
	// worker keeps the sockets it got before.
	Sockets []Socket `json:"sockets,omitempty"`
}

// Socket names a listening socket.
type Socket struct {
	Name    string         `json:"name"`
	Network string         `json:"network"` // "tcp", "udp", or [Door]
	Address netip.AddrPort `json:"address"` // of the listener
}

// Door is the Network of a socket for [Worker.AddDoor].
const Door = "door"

// WithStates returns a copy of s that hints at the states of backends, as the
// vitals of an earlier worker had them.
func (s *Snapshot) WithStates(known []origin.Status) *Snapshot {
	c := *s
	c.Pools = slices.Clone(s.Pools)
	for i := range c.Pools {
		p := &c.Pools[i]
		for _, k := range known {
			if k.Name != p.Config.Name {
				continue
			}
			p.States = make(map[netip.AddrPort]health.State, len(k.Backends))
			for _, b := range k.Backends {
				p.States[b.Address] = b.State
			}
		}
	}
	return &c
}

// Applied answers one [Apply].
type Applied struct {
	Generation uint64 `json:"generation"`
	// Error is empty when the snapshot is in force; otherwise nothing changed.
	Error string `json:"error,omitempty"`
}

// Gather asks for the worker's metrics.
type Gather struct {
	ID uint64 `json:"id"`
}

// Metrics answers one [Gather].
type Metrics struct {
	ID uint64 `json:"id"`
	// Families are in Prometheus's delimited protobuf format.
	Families []byte `json:"families"`
}

// Serve runs a worker under the agent at the other end of conn. It returns
// after the agent is gone or ctx ended, and the last requests were served or
// the drain timeout passed.
func Serve(ctx context.Context, conn *link.Conn, log *slog.Logger, reg *prometheus.Registry) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	c := &control{worker: New(log, reg), conn: conn, reg: reg, interval: make(chan time.Duration, 1)}
	received := make(chan struct{})
	go func() {
		defer close(received)
		cancel(c.receive())
	}()
	vitals := make(chan struct{})
	go func() {
		defer close(vitals)
		c.vitals(ctx)
	}()

	measured := make(chan struct{})
	go func() {
		defer close(measured)
		c.measure(ctx)
	}()
	tuned := make(chan struct{})
	go func() {
		defer close(tuned)
		heap.Tune(ctx)
	}()

	err := c.worker.Run(ctx)
	if cause := context.Cause(ctx); errors.Is(cause, io.EOF) {
		log.Info("agent is gone, worker drained")
	} else if err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	cancel(nil)
	conn.Close()
	<-received
	<-vitals
	<-measured
	<-tuned
	return err
}

// control is the worker's side of the link.
type control struct {
	worker   *Worker
	conn     *link.Conn
	reg      *prometheus.Registry
	interval chan time.Duration // the newest vitals interval, not yet taken
}

// receive handles the agent's messages until the link ends.
func (c *control) receive() error {
	for {
		m, err := c.conn.Receive()
		if err != nil {
			return err
		}
		switch m.Kind {
		case KindApply:
			err = c.apply(m)
		case KindGather:
			err = c.gather(m)
		case KindShed:
			var s Shed
			m.CloseFiles()
			if err = m.Decode(&s); err == nil {
				c.shed(s)
			}
		default:
			m.CloseFiles()
			err = fmt.Errorf("unknown message %q from the agent", m.Kind)
		}
		if err != nil {
			return err
		}
	}
}

// apply answers whether the agent's state is in force. The error is about the
// link only.
func (c *control) apply(m link.Message) error {
	defer m.CloseFiles()
	var a Apply
	if err := m.Decode(&a); err != nil {
		return err
	}
	if a.Snapshot == nil {
		return errors.New("apply without a snapshot")
	}
	answer := Applied{Generation: a.Snapshot.Generation}
	if err := c.adopt(a, m); err != nil {
		answer.Error = err.Error()
	} else {
		select {
		case <-c.interval:
		default:
		}
		c.interval <- a.Snapshot.VitalsInterval.Std()
	}
	return c.conn.Send(KindApplied, answer)
}

func (c *control) adopt(a Apply, m link.Message) error {
	if len(a.Sockets) != len(m.Files) {
		return fmt.Errorf("%d descriptors for %d sockets", len(m.Files), len(a.Sockets))
	}
	for i, s := range a.Sockets {
		if err := c.addSocket(s, m.Files[i]); err != nil {
			return fmt.Errorf("listener %s: %w", s.Name, err)
		}
	}
	if err := c.worker.Apply(a.Snapshot); err != nil {
		return err
	}
	if a.Draining {
		c.worker.Drain()
	} else {
		c.worker.Undrain()
	}
	return nil
}

// addSocket gives the worker a copy of a socket.
func (c *control) addSocket(s Socket, f *os.File) error {
	if s.Network == "udp" {
		conn, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		udp, ok := conn.(*net.UDPConn)
		if !ok {
			conn.Close()
			return fmt.Errorf("a %T is no UDP socket", conn)
		}
		c.worker.AddPacketSocket(s.Name, udp)
		return nil
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	if s.Network == Door {
		c.worker.AddDoor(s.Name, s.Address, l)
	} else {
		c.worker.AddSocket(s.Name, l)
	}
	return nil
}

func (c *control) gather(m link.Message) error {
	var g Gather
	if err := m.Decode(&g); err != nil {
		return err
	}
	// A collector's error leaves its family out; the others are worth having.
	families, _ := c.reg.Gather()
	var buf bytes.Buffer
	enc := expfmt.NewEncoder(&buf, expfmt.NewFormat(expfmt.TypeProtoDelim))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return fmt.Errorf("encode metrics: %w", err)
		}
	}
	return c.conn.Send(KindMetrics, Metrics{ID: g.ID, Families: buf.Bytes()})
}

// vitals reports until ctx ends, from the first snapshot on. A link that fails
// is noticed by receive.
func (c *control) vitals(ctx context.Context) {
	var tick <-chan time.Time
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-c.interval:
			ticker.Reset(d)
			tick = ticker.C
		case <-tick:
		}
		if err := c.conn.Send(KindVitals, c.worker.Vitals()); err != nil {
			return
		}
	}
}
