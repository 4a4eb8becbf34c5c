package pop

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"anyedge/origin"
	"anyedge/pop/link"
	"anyedge/pop/proxy"
)

// tinyWorkerRole, as the first argument, makes the test binary a worker that
// speaks the link's protocol and serves one line per connection.
const tinyWorkerRole = "tiny-worker"

// What a tiny worker does is said by the Region of its snapshot.
const (
	tinyServes   = ""
	tinyRefuses  = "refuses"  // answers that it cannot take the snapshot
	tinySilent   = "silent"   // does not answer
	tinyCrashes  = "crashes"  // exits when it gets the snapshot
	tinyStubborn = "stubborn" // does not end when its agent is gone
	tinyMute     = "mute"     // does not say what its metrics are
)

// tiny is a tiny worker.
type tiny struct {
	conn *link.Conn
	open sync.WaitGroup // client connections

	mu        sync.Mutex
	inForce   proxy.Apply
	listeners map[string]net.Listener
}

func tinyWorker() {
	conn, err := link.FromFile(os.NewFile(3, "link"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	w := &tiny{conn: conn, listeners: make(map[string]net.Listener)}
	for {
		m, err := conn.Receive()
		if err != nil {
			break
		}
		switch m.Kind {
		case proxy.KindApply:
			w.apply(m)
		case proxy.KindGather:
			w.gather(m)
		}
	}
	if w.inForce.Snapshot != nil && w.inForce.Snapshot.Region == tinyStubborn {
		select {}
	}
	for _, l := range w.listeners {
		l.Close()
	}
	w.open.Wait() // drain
}

func (w *tiny) apply(m link.Message) {
	defer m.CloseFiles()
	var a proxy.Apply
	if err := m.Decode(&a); err != nil {
		os.Exit(1)
	}
	answer := proxy.Applied{Generation: a.Snapshot.Generation}
	switch a.Snapshot.Region {
	case tinyCrashes:
		os.Exit(7)
	case tinySilent:
		return
	case tinyRefuses:
		answer.Error = "no such thing"
		w.conn.Send(proxy.KindApplied, answer)
		return
	}
	w.mu.Lock()
	w.inForce = a
	w.mu.Unlock()
	for i, s := range a.Sockets {
		if w.listeners[s.Name] != nil {
			continue
		}
		l, err := net.FileListener(m.Files[i])
		if err != nil {
			os.Exit(1)
		}
		w.listeners[s.Name] = l
		go w.accept(l)
	}
	v := proxy.Vitals{PID: os.Getpid(), Generation: a.Snapshot.Generation, State: proxy.StateReady, Draining: a.Draining}
	for _, p := range a.Snapshot.Pools {
		s := origin.Status{Name: p.Config.Name}
		for _, b := range p.Backends {
			s.Backends = append(s.Backends, origin.BackendStatus{Backend: b, State: p.States[b.Address]})
		}
		v.Pools = append(v.Pools, s)
	}
	w.conn.Send(proxy.KindApplied, answer)
	w.conn.Send(proxy.KindVitals, v)
}

func (w *tiny) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		w.open.Add(1)
		go w.serve(c)
	}
}

// serve answers lines: "who" with the process id and the generation, "states"
// with what the pools' backends were said to be, "crash" not at all.
func (w *tiny) serve(c net.Conn) {
	defer w.open.Done()
	defer c.Close()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		w.mu.Lock()
		s := w.inForce.Snapshot
		w.mu.Unlock()
		switch lines.Text() {
		case "who":
			fmt.Fprintf(c, "%d %d\n", os.Getpid(), s.Generation)
		case "states":
			var states []string
			for _, p := range s.Pools {
				for a, state := range p.States {
					states = append(states, fmt.Sprintf("%s/%s=%s", p.Config.Name, a, state))
				}
			}
			slices.Sort(states)
			fmt.Fprintln(c, strings.Join(states, " "))
		case "crash":
			os.Exit(7)
		}
	}
}

func (w *tiny) gather(m link.Message) {
	var g proxy.Gather
	if err := m.Decode(&g); err != nil || w.inForce.Snapshot.Region == tinyMute {
		return
	}
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "tiny_total", Help: "Test."})
	reg.MustRegister(counter)
	counter.Add(float64(g.ID))
	families, _ := reg.Gather()
	var buf bytes.Buffer
	enc := expfmt.NewEncoder(&buf, expfmt.NewFormat(expfmt.TypeProtoDelim))
	for _, f := range families {
		enc.Encode(f)
	}
	w.conn.Send(proxy.KindMetrics, proxy.Metrics{ID: g.ID, Families: buf.Bytes()})
}
