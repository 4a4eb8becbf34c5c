// Package xdp answers DNS queries in the network driver: a BPF program at an
// interface (XDP) has a table of packed answers, and sends those back itself. What
// it does not know, or is not sure of, it passes on to the sockets as if it were
// not there. Its answers are those of the sockets, octet by octet.
//
// It answers queries over UDP of the usual form, without EDNS options or with a
// client subnet, from an image of the table: names, answers, and for steered names
// the addresses of each region. Cookies, other options, signed answers that are
// asked for, lots, and long answers go to the sockets.
//
// The image is replaced as a whole. When the process ends, however, the kernel
// takes the program off the interface; when it hangs, the program does not trust
// the image any more after a few seconds. It answers at addresses that the host has
// at the moment, within a second.
//
// It is past firewall and packet capture of the host: neither sees what it answers.
// Queries over a VLAN must come with their tag.
//
// Package xdp is the only importer of cilium/ebpf. Its program is bpf/dns.c, of
// which the compiled object is kept beside it.
//
// # Concurrency
//
// Update may be called at any time, by any goroutine. Run is called once, and is
// the only one that speaks to the kernel, but for the counters, which the metrics
// read.
package xdp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

const (
	beatInterval = time.Second
	// trustTime is how long the program trusts the image without a beat.
	trustTime = 3 * time.Second
)

// Options is what a Program is made of.
type Options struct {
	// Interface is the name of the network interface that queries come from. It may
	// come and go.
	Interface string
	// Generic runs the program after the driver, in the kernel's own code, for
	// drivers that cannot run it themselves. That saves less.
	Generic bool
	// Listen are the server's addresses. An unspecified one stands for all of the
	// host's of its family.
	Listen []netip.AddrPort
	// Responses per second are sent at most of one answer to one network, an IPv4
	// /24 or an IPv6 /56, unless it is within one of Exempt. What is more is passed
	// to the sockets. 0 limits nothing.
	Responses int
	Exempt    []netip.Prefix

	Log      *slog.Logger
	Registry prometheus.Registerer // may be nil
}

// Program is a program at an interface.
type Program struct {
	o Options
	m *metrics

	answering atomic.Bool
	trouble   atomic.Pointer[error] // why it does not; nil before Run

	mu      sync.Mutex
	image   []byte        // the newest; nil for none
	failed  error         // why there is none
	changed chan struct{} // of capacity 1: image is not the one in force
}

// New returns a program that knows no answers. It loads nothing into the kernel.
func New(o Options) *Program {
	return &Program{o: o, m: newMetrics(o.Registry), changed: make(chan struct{}, 1)}
}

// Update replaces the table; Run puts it in force. A nil table has no answers, and
// neither has one that does not fit, of which the error says so.
func (p *Program) Update(t *Table) error {
	var image []byte
	var err error
	if t != nil {
		if image, err = build(t, p.o.Exempt); err != nil {
			err = fmt.Errorf("xdp: %w", err)
		}
	}
	p.mu.Lock()
	p.image, p.failed = image, err
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default: // it is known already
	}
	return err
}

// Attached reports whether the program is at its interface and has an image to
// answer from.
func (p *Program) Attached() bool { return p.answering.Load() }

// Trouble returns why the program does not answer, or not everywhere; nil if nothing
// keeps it from its work.
func (p *Program) Trouble() error {
	if t := p.trouble.Load(); t != nil {
		return *t
	}
	return nil
}

// Run keeps the program at the interface until ctx is done, and takes it off then.
// While it cannot be attached Run tries again, and says why in the log. It returns
// early with an error if the kernel does not take the program at all.
func (p *Program) Run(ctx context.Context) error {
	l, err := load()
	if err != nil {
		return fmt.Errorf("xdp: %w", err)
	}
	p.m.read(l.Outcomes)
	defer l.close()
	defer p.m.read(nil)
	a := attachment{Program: p, loaded: l}
	defer a.detach()
	beat := time.NewTicker(beatInterval)
	defer beat.Stop()
	for {
		err := a.beat()
		if err != nil {
			a.complain(err)
		} else {
			a.complained = ""
		}
		a.tell(err)
		select {
		case <-ctx.Done():
			return nil
		case <-p.changed:
			if err := a.replace(); err != nil {
				p.o.Log.Error("xdp image not replaced, queries go to the sockets", "error", err)
			}
		case <-beat.C:
		}
	}
}

// attachment is a loaded program's state between beats.
type attachment struct {
	*Program
	*loaded
	link       link.Link // nil while it is not attached
	index      int       // of the interface
	endpoints  map[endpoint]bool
	complained string // the last error in the log
	inForce    bool   // there is an image
	missing    error  // why there is none
}

// tell shows how the program is doing, after a beat with this error.
func (a *attachment) tell(err error) {
	err = errors.Join(err, a.missing)
	a.trouble.Store(&err)
	a.answering.Store(err == nil && a.link != nil && a.inForce)
}

// beat brings the program in step with the host, and lets it trust its image for a
// while.
func (a *attachment) beat() error {
	itf, err := net.InterfaceByName(a.o.Interface)
	if err != nil {
		a.detach()
		return fmt.Errorf("interface %s: %w", a.o.Interface, err)
	}
	local, err := localAddresses()
	if err != nil {
		return err
	}
	if err := a.listen(endpointsOf(a.o.Listen, local)); err != nil {
		return err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	c := controlOf(a.o.Responses, itf.HardwareAddr, uint64(now.Nano()+int64(trustTime)))
	if err := a.Controls.Put(uint32(0), &c); err != nil {
		return fmt.Errorf("write the control: %w", err)
	}
	if a.link != nil && a.index == itf.Index {
		return nil
	}
	a.detach()
	mode, flags := "native", link.XDPDriverMode
	if a.o.Generic {
		mode, flags = "generic", link.XDPGenericMode
	}
	a.link, err = link.AttachXDP(link.XDPOptions{Program: a.loaded.Program, Interface: itf.Index, Flags: flags})
	if err != nil {
		a.link = nil
		if !a.o.Generic && errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("the driver cannot run programs, generic mode may do: %w", err)
		}
		return fmt.Errorf("attach to %s in %s mode: %w", itf.Name, mode, err)
	}
	a.index = itf.Index
	a.m.attached.Set(1)
	a.o.Log.Info("xdp attached", "interface", itf.Name, "mode", mode)
	return nil
}

// listen replaces the endpoints at which the program answers.
func (a *attachment) listen(wanted map[endpoint]bool) error {
	for e := range a.endpoints {
		if !wanted[e] {
			if err := a.Endpoints.Delete(&e); err != nil {
				return fmt.Errorf("remove an address: %w", err)
			}
			delete(a.endpoints, e)
		}
	}
	for e := range wanted {
		if !a.endpoints[e] {
			if err := a.Endpoints.Put(&e, uint8(1)); err != nil {
				return fmt.Errorf("add an address: %w", err)
			}
			if a.endpoints == nil {
				a.endpoints = make(map[endpoint]bool)
			}
			a.endpoints[e] = true
		}
	}
	return nil
}

// replace puts the newest image in force. If that fails there is none.
func (a *attachment) replace() error {
	a.mu.Lock()
	image, failed := a.image, a.failed
	a.mu.Unlock()
	err := a.install(image)
	if err != nil {
		err = errors.Join(err, a.install(nil))
		image = nil
	}
	a.inForce, a.missing = image != nil, errors.Join(failed, err)
	a.m.imageBytes.Set(float64(len(image)))
	return err
}

func (a *attachment) detach() {
	if a.link == nil {
		return
	}
	a.link.Close()
	a.link = nil
	a.answering.Store(false)
	a.m.attached.Set(0)
	a.o.Log.Info("xdp detached", "interface", a.o.Interface)
}

// complain says once what keeps the program from its work.
func (a *attachment) complain(err error) {
	if a.complained != err.Error() {
		a.complained = err.Error()
		a.o.Log.Error("xdp does not answer, queries go to the sockets", "error", err)
	}
}
