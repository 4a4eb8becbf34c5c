package cli

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"anyedge/bgp/bfd"
	"anyedge/configs"
	"anyedge/internal/health"
	"anyedge/internal/ops"
	"anyedge/pop"
	"anyedge/pop/headroom"
	"anyedge/pop/proxy"
	"anyedge/pop/vrrp"
)

// statusRow is one line of a node's status, on the terminal and in the browser.
type statusRow struct {
	name, text string
	tone       ops.Tone
}

// statusRows puts a node's status into words.
func statusRows(now time.Time, s pop.Status, routes pop.Routes, pools pop.Pools) []statusRow {
	var rows []statusRow
	add := func(name string, tone ops.Tone, format string, args ...any) {
		rows = append(rows, statusRow{name, fmt.Sprintf(format, args...), tone})
	}
	span := func(t time.Time) string { return now.Sub(t).Round(time.Second).String() }
	ago := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return span(t) + " ago"
	}

	add("node", ops.TonePlain, "%s (PoP %s, region %s)", s.Node, s.Pop, s.Region)
	add("health", healthTone(s.Health.State), "%s: %s", s.Health.State, s.Health.Reason)
	add("announcement", announcementTone(s.Announcement.State), "%s for %s: %s", s.Announcement.State, span(s.Announcement.Since), s.Announcement.Reason)
	if s.Guard.Refused != "" {
		add("guard", ops.ToneWarn, "withdrawal refused: %s", s.Guard.Refused)
	}
	if s.Drain.Stage != pop.DrainNone {
		add("drain", ops.ToneWarn, "%s for %s", s.Drain.Stage, span(s.Drain.Since))
	}
	for _, o := range s.Overrides {
		on := o.Scope + " " + o.Name
		if o.Prefix.IsValid() {
			on += " " + o.Prefix.String()
		}
		force := ""
		if o.Force {
			force = " by force"
		}
		add("override", ops.ToneWarn, "%s%s, %s, for %s more, by %s: %s", o.Action, force, on, o.Until.Sub(now).Round(time.Second), o.By, o.Reason)
	}
	w := s.Worker
	if w.Ready {
		add("worker", ops.ToneOK, "ready, pid %d, %d connections, %d requests", w.PID, w.Connections, w.Requests)
	} else {
		add("worker", ops.ToneBad, "not ready; the last one ended with: %s", w.LastExit)
	}
	if w.Shed > 0 {
		add("shedding", ops.ToneBad, "%d%% of new requests are refused", w.Shed)
	}
	for _, u := range w.Usage {
		add("ceiling", levelTone(headroom.LevelOf(u)), "%s %s of %s (%.0f%%)", u.Resource,
			amount(u.Resource, u.Used), amount(u.Resource, u.Ceiling), 100*u.Utilization())
	}
	add("config", ops.TonePlain, "generation %d, last good %s", s.Config.Generation, ago(s.Config.LastGood))
	if s.Config.LastError != "" {
		add("config", ops.ToneWarn, "refused %s: %s", ago(s.Config.FailedAt), strings.ReplaceAll(s.Config.LastError, "\n", "; "))
	}
	if s.Fleet.Connected {
		add("fleet", ops.ToneOK, "connected for %s, %d nodes", span(s.Fleet.Since), s.Fleet.Nodes)
	} else {
		add("fleet", ops.ToneWarn, "out of reach for %s; what was known stays", span(s.Fleet.Since))
	}
	for _, key := range s.Fleet.Rejected {
		add("fleet", ops.ToneWarn, "the value of %s is not valid; the last good one stays", key)
	}
	if routes.BGP != nil {
		for _, n := range routes.BGP.Neighbors {
			tone := ops.ToneOK
			if n.EstablishedSince.IsZero() {
				tone = ops.ToneBad
			}
			if n.Shutdown != nil {
				add("neighbor", ops.ToneWarn, "%s AS%d shut down by an operator: %s", n.Address, n.ASN, cmp.Or(*n.Shutdown, "no text"))
				continue
			}
			add("neighbor", tone, "%s AS%d %s, %d routes sent, %d updates refused", n.Address, n.ASN, n.State, len(n.AdjRIBOut), n.RefusedUpdates)
		}
	}
	for _, b := range routes.Blackholes {
		add("blackhole", ops.ToneWarn, "%s for another %s: %s", b.Address, b.Until.Sub(now).Round(time.Second), cmp.Or(b.Reason, "no reason given"))
	}
	for _, b := range routes.BFD {
		tone, words := ops.ToneOK, fmt.Sprintf("%s %s", b.Peer, b.State)
		if b.State != bfd.Up {
			tone = ops.ToneBad
		}
		if !b.Since.IsZero() {
			words += " for " + span(b.Since)
		}
		if b.DetectionTime > 0 {
			words += fmt.Sprintf(", detection time %s", b.DetectionTime)
		}
		add("bfd", tone, "%s, failures: %d", words, b.Failures)
	}
	for _, v := range routes.VRRP {
		tone := ops.ToneOK
		if v.State == vrrp.Initialize || v.Error != "" {
			tone = ops.ToneBad
		}
		add("vrrp", tone, "%s on %s, %s, VRID %d, priority %d: %s", v.State, v.Interface, v.Family, v.VRID, v.Priority, cmp.Or(v.Error, v.Reason))
	}
	for _, p := range pools.Pools {
		tone := ops.ToneOK
		switch {
		case p.Usable == 0:
			tone = ops.ToneBad
		case p.Usable < len(p.Backends):
			tone = ops.ToneWarn
		}
		add("pool", tone, "%s: %d of %d backends usable", p.Name, p.Usable, len(p.Backends))
	}
	return rows
}

// amount writes a figure of a resource in its own unit.
func amount(resource string, v float64) string {
	if resource != proxy.ResourceMemory {
		return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
	}
	if s := configs.Size(v); s < 1<<30 {
		return fmt.Sprintf("%d MiB", s>>20)
	}
	return fmt.Sprintf("%.1f GiB", v/(1<<30))
}

func healthTone(s health.State) ops.Tone {
	return map[health.State]ops.Tone{health.Healthy: ops.ToneOK, health.Unknown: ops.ToneWarn, health.Unhealthy: ops.ToneBad}[s]
}

func announcementTone(a pop.Announcement) ops.Tone {
	return map[pop.Announcement]ops.Tone{pop.Announced: ops.ToneOK, pop.Depreferred: ops.ToneWarn, pop.Withdrawn: ops.ToneBad}[a]
}

func levelTone(l headroom.Level) ops.Tone {
	switch l {
	case headroom.Warn:
		return ops.ToneWarn
	case headroom.Shed:
		return ops.ToneBad
	}
	return ops.ToneOK
}
