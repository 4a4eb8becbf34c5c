package gslb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"time"

	"anyedge/gslb/steer"
	"anyedge/gslb/xdp"

	"golang.org/x/sys/unix"
)

// XDP is the part of a Config that answers queries in the network driver, ahead of
// the sockets. See package gslb/xdp.
type XDP struct {
	// Interface is where it is attached. Default: nowhere.
	Interface string
	// Generic is for drivers that cannot run programs.
	Generic bool
}

// kernel is what answers ahead of the sockets.
type kernel interface {
	// Update replaces what it knows.
	Update(*xdp.Table) error
	// Attached reports whether it answers, Trouble what is in the way.
	Attached() bool
	Trouble() error
	Run(context.Context) error
}

// newKernel returns nil if the sockets are alone.
func (s *Server) newKernel(listen []netip.AddrPort) kernel {
	if s.cfg.XDP.Interface == "" {
		return nil
	}
	if !s.cfg.XDP.Generic && isVeth(s.cfg.XDP.Interface) {
		s.log.Warn("xdp in native mode on a veth: answers are lost unless its other end has a program too; mode generic does without", "interface", s.cfg.XDP.Interface)
	}
	o := xdp.Options{
		Interface: s.cfg.XDP.Interface, Generic: s.cfg.XDP.Generic, Listen: listen,
		Log: s.log, Registry: s.registry,
	}
	if l := s.limiter; l != nil {
		o.Responses, o.Exempt = l.Responses-socketsShare(l.Responses), l.Exempt
	}
	return xdp.New(o)
}

// isVeth reports whether an interface is an end of a veth pair, as in containers.
func isVeth(name string) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, name)
	return err == nil && unix.ByteSliceToString(info.Driver[:]) == "veth"
}

// runKernel runs what answers ahead of the sockets. The sockets can do without it:
// that it ends is told, and no error.
func (s *Server) runKernel(ctx context.Context, k kernel) {
	s.mu.Lock()
	s.kernel = k
	s.mu.Unlock()
	if err := k.Run(ctx); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: it needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN", err)
		}
		s.log.Error("xdp not available, all queries go to the sockets", "error", err)
		s.mu.Lock()
		s.kernelError = err.Error()
		s.mu.Unlock()
	}
}

// XDPStatus is how the part of a server in the network driver is doing.
type XDPStatus struct {
	Interface string `json:"interface"`
	Attached  bool   `json:"attached"`
	Error     string `json:"error,omitempty"` // why it is not
}

// kernelStatus returns nil if the sockets are alone.
func (s *Server) kernelStatus() *XDPStatus {
	if s.cfg.XDP.Interface == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	status := &XDPStatus{Interface: s.cfg.XDP.Interface, Error: s.kernelError}
	if s.kernel != nil && status.Error == "" {
		status.Attached = s.kernel.Attached()
		if err := s.kernel.Trouble(); err != nil {
			status.Error = err.Error()
		}
	}
	return status
}

// feedKernel keeps the kernel's table in step with the view.
func (s *Server) feedKernel(ctx context.Context, k kernel) {
	for {
		table, answers := s.view.Load().export(s.limiter != nil)
		if err := k.Update(table); err != nil {
			s.log.Error("xdp table not built, all queries go to the sockets", "error", err)
			answers = nil
		}
		if s.limiter != nil {
			s.limiter.held.Store(&held{answers, k.Attached})
		}
		select {
		case <-ctx.Done():
			return
		case <-s.viewed:
		}
	}
}

// export returns the packed answers of a view that go by name, type and client
// network alone, and which those are. With a rate limit, those of signed zones are
// left to the sockets, which have most of the queries for them: who asks for
// signatures.
func (v *view) export(limited bool) (*xdp.Table, map[*packed]*xdp.Answer) {
	e := exporter{view: v, limited: limited, done: make(map[*packed]*xdp.Answer)}
	names := slices.Sorted(maps.Keys(v.entries))
	entries := make([]xdp.Entry, len(names))
	for i, n := range names {
		entry := v.entries[n]
		e.types = len(entry.at.types) + len(entry.below.types)
		entries[i] = xdp.Entry{At: e.answers(n, "at", &entry.at), Below: e.answers(n, "below", &entry.below)}
	}
	return &xdp.Table{Names: func(yield func(string, xdp.Entry) bool) {
		for i, n := range names {
			if !yield(string(n), entries[i]) {
				return
			}
		}
	}}, e.done
}

type exporter struct {
	*view
	limited bool
	types   int // of the name at hand
	done    map[*packed]*xdp.Answer
}

func (e *exporter) answers(n name, place string, a *answers) (out xdp.Answers) {
	for _, t := range a.types {
		out.Types = append(out.Types, xdp.Typed{Type: t.qtype, Answer: e.answer(n, place, t.qtype, t.packed)})
	}
	out.Other = e.answer(n, place, 0, a.other.packed)
	return out
}

// answer converts an answer that is at a name or below it, which tells it apart from
// others the same way in each view; nil if the sockets have to give it.
func (e *exporter) answer(n name, place string, qtype uint16, p *packed) *xdp.Answer {
	if p == nil || p.secure && e.limited {
		return nil
	}
	if out, done := e.done[p]; done {
		return out
	}
	id := fnv.New64a()
	id.Write([]byte(n))
	id.Write([]byte(place))
	id.Write(binary.BigEndian.AppendUint16(nil, qtype))
	out := &xdp.Answer{ID: id.Sum64(), Flags: p.flags, Counts: p.counts, Body: p.body, Base: p.base, Moving: p.moving, Secure: p.secure}
	if p.steered != "" {
		out.Steering, out.TTL = e.table.Decisions(p.steered, p.family)
		if out.Steering == nil || out.Steering.Regions == nil && out.Steering.Nowhere == steer.Undecided {
			return nil
		}
		out.Family, out.Owner = p.family, p.owner
	}
	if !out.Fits(string(n), e.types) {
		return nil
	}
	e.done[p] = out
	return out
}

// socketsShare is the part of the rate limit that the sockets have of an answer
// that the kernel gives too, which has the rest: so both together keep to the limit.
// Few queries for such answers reach the sockets, unless they are over the limit.
func socketsShare(responses int) int { return max(responses/4, 1) }

// held are the answers that the kernel gives too while it is attached. What it has no
// room for is not among them: the sockets have all of the rate for that.
type held struct {
	answers  map[*packed]*xdp.Answer
	attached func() bool
}

// actFast is act for an answer of the fast path.
func (l *limiter) actFast(from netip.Addr, out *fastOutcome, now time.Time, random uint64) action {
	if l == nil {
		return sendAnswer
	}
	interval := l.interval
	if h := l.held.Load(); h != nil && h.answers[out.which] != nil && h.attached() {
		interval = l.shared
	}
	return l.actAt(interval, from, out.answer(), now, random)
}
