package proxy

import (
	"os"
	"slices"
	"strings"
	"time"

	"anyedge/origin"
	"anyedge/pop/headroom"
)

// The states of a worker.
const (
	StateStarting = "starting" // no snapshot is in force, or Run has not begun
	StateReady    = "ready"    // every listener of the snapshot is served
	StateDraining = "draining" // likewise, and clients are asked to go
)

// Vitals is what a worker reports about itself.
type Vitals struct {
	PID        int    `json:"pid"`
	Generation uint64 `json:"generation"` // of the snapshot in force; 0 before the first
	Sequence   uint64 `json:"sequence"`   // grows with each report of a process
	State      string `json:"state"`
	Draining   bool   `json:"draining"`
	// Connections and InFlight are open client connections and exchanges.
	Connections int64 `json:"connections"`
	InFlight    int64 `json:"in_flight"`
	// Requests counts the exchanges that began, probes left out.
	Requests uint64 `json:"requests"`
	// Shed is the percent of new requests that are refused.
	Shed  int              `json:"shed,omitempty"`
	Usage []headroom.Usage `json:"usage"`
	Pools []origin.Status  `json:"pools"` // by name
}

// Ready reports whether the worker serves its listeners.
func (v Vitals) Ready() bool { return v.State == StateReady || v.State == StateDraining }

// Vitals returns the worker's present state. Figures are read one after the
// other. Only the processor's use is a rate, over about a second.
func (w *Worker) Vitals() Vitals {
	v := Vitals{
		PID:         os.Getpid(),
		Sequence:    w.sequence.Add(1),
		State:       StateStarting,
		Draining:    w.draining.Load(),
		Connections: int64(w.conns.count()),
		InFlight:    w.inFlight.Load(),
		Requests:    w.requests.Load(),
		Shed:        w.shedder.percent(time.Now()),
	}
	w.mu.Lock()
	s := w.state.Load()
	if s != nil && w.run != nil {
		v.State = StateReady
		if v.Draining {
			v.State = StateDraining
		}
	}
	for _, u := range w.upstreams {
		v.Pools = append(v.Pools, u.pool.Status())
	}
	w.mu.Unlock()
	slices.SortFunc(v.Pools, func(a, b origin.Status) int { return strings.Compare(a.Name, b.Name) })

	if s != nil {
		v.Generation = s.generation
		v.Usage = append(v.Usage, headroom.Usage{
			Resource: ResourceConnections, Used: float64(v.Connections), Ceiling: float64(s.maxConnections),
		})
	}
	v.Usage = append(v.Usage, w.meter.usage()...)
	return v
}
