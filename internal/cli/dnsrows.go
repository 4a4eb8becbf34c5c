package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"anyedge/gslb"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
)

// dnsNode is all that the status of a DNS node is put together from.
type dnsNode struct {
	gslb.Overview
	plan      gslb.PlanReport
	keys      []gslb.ZoneKeysStatus
	overrides []fleet.SteerOverride
}

// dnsStatus prints the status of a DNS node, whose answer to /v1/status is raw.
func (c *invocation) dnsStatus(ctx context.Context, client ops.Client, raw json.RawMessage) error {
	var n dnsNode
	if err := json.Unmarshal(raw, &n.Overview); err != nil {
		return err
	}
	var keys struct{ Zones []gslb.ZoneKeysStatus }
	var overrides struct{ Overrides []fleet.SteerOverride }
	for path, out := range map[string]any{"/v1/plan": &n.plan, "/v1/dnssec": &keys, "/v1/steer/override": &overrides} {
		if err := client.Get(ctx, path, out); err != nil {
			return err
		}
	}
	n.keys, n.overrides = keys.Zones, overrides.Overrides
	return printStatus(c.out, dnsRows(time.Now(), n))
}

// maxTrouble bounds an error in a row of a status.
const maxTrouble = 300

// dnsRows puts a DNS node's status into words.
func dnsRows(now time.Time, n dnsNode) []statusRow {
	var rows []statusRow
	add := func(name string, tone ops.Tone, format string, args ...any) {
		rows = append(rows, statusRow{name, fmt.Sprintf(format, args...), tone})
	}
	span := func(t time.Time) string { return now.Sub(t).Abs().Round(time.Second).String() }
	addresses := make([]string, len(n.DNS.Listen))
	for i, a := range n.DNS.Listen {
		addresses[i] = a.String()
	}

	add("node", ops.TonePlain, "%s (DNS)", n.Node)
	if len(addresses) > 0 {
		add("listen", ops.ToneOK, "%s", strings.Join(addresses, " "))
	} else {
		add("listen", ops.ToneBad, "on no address yet")
	}
	if x := n.DNS.XDP; x != nil && x.Attached {
		add("xdp", ops.ToneOK, "attached to %s", x.Interface)
	} else if x != nil {
		add("xdp", ops.ToneBad, "not attached to %s, the sockets answer all: %s", x.Interface, cmp.Or(line(x.Error), "the log says why"))
	}
	add("config", ops.TonePlain, "%s, last good %s ago", n.Config.File, span(n.Config.LastGood))
	if n.Config.LastError != "" {
		add("config", ops.ToneWarn, "refused %s ago, the last good one stays: %s", span(n.Config.FailedAt), line(n.Config.LastError))
	}
	if n.FleetConnected {
		add("fleet", ops.ToneOK, "connected for %s", span(n.FleetSince))
	} else {
		add("fleet", ops.ToneWarn, "out of reach for %s; what was known stays", span(n.FleetSince))
	}
	for _, key := range n.FleetRejected {
		add("fleet", ops.ToneWarn, "the value of %s is not valid; the last good one stays", key)
	}
	for _, z := range n.DNS.Zones {
		add("zone", zoneTone(z), "%s", zoneWords(z, span))
	}
	for _, z := range n.keys {
		if z.Error != "" {
			add("dnssec", ops.ToneBad, "%s: %s", z.Zone, line(z.Error))
		}
		if signed := "not signed"; z.Waiting != "" {
			if z.Signed {
				signed = "signed"
			}
			add("dnssec", ops.ToneWarn, "%s %s, waits %s", z.Zone, signed, z.Waiting)
		}
	}
	for _, p := range n.DNS.Pops {
		cell := popCell(p)
		add("pop", cell.Tone, "%s %s: %s", p.Name, cell.Text, p.Note)
	}
	if len(n.DNS.Names) > 0 {
		add("names", ops.TonePlain, "%s steered", counted(len(n.DNS.Names), "name"))
		add("plan", ops.TonePlain, "%s", n.plan.Summary)
	}
	for _, o := range n.overrides {
		add("override", ops.ToneWarn, "%s %s %s, for %s more, by %s: %s", o.Names, steerAction(o), o.Pops, span(o.Until), o.By, o.Reason)
	}
	return rows
}

// line puts an error that may be of many lines into a bounded one.
func line(text string) string {
	text = strings.ReplaceAll(text, "\n", "; ")
	if len(text) > maxTrouble {
		text = strings.ToValidUTF8(text[:maxTrouble], "") + "…"
	}
	return text
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func zoneTone(z gslb.ZoneStatus) ops.Tone {
	switch {
	case !z.Available:
		return ops.ToneBad
	case z.Following != nil && (z.Following.Error != "" || z.Following.FileError != ""):
		return ops.ToneWarn
	}
	return ops.ToneOK
}

// zoneWords says how a zone is doing.
func zoneWords(z gslb.ZoneStatus, span func(time.Time) string) string {
	words := fmt.Sprintf("%s serial %d, %s, %s", strings.TrimSuffix(z.Name, "."), z.Serial, counted(z.Records, "record"), strings.TrimPrefix(z.Source, z.Name+" "))
	f := z.Following
	switch {
	case z.Error != "":
		words = strings.TrimSuffix(z.Name, ".") + " not served: " + line(z.Error)
	case !z.Available && f == nil:
		words = strings.TrimSuffix(z.Name, ".") + " not served: there are no keys to sign it with"
	case !z.Available:
		words = strings.TrimSuffix(z.Name, ".") + " not served: there is no copy, or it has expired"
	}
	if f == nil {
		return words
	}
	if f.Alias {
		words += ", alias of " + strings.Join(f.Of, " ")
	}
	if z.Available && !f.Seen.IsZero() {
		words += ", checked " + span(f.Seen) + " ago"
	}
	if !f.Next.IsZero() {
		words += ", next try in " + span(f.Next)
	}
	if f.FileError != "" {
		words += ", " + line(f.FileError)
	}
	if f.Error != "" {
		if f.Alias && f.Seen.IsZero() {
			words += ", not resolved so far"
		}
		if !f.Expires.IsZero() {
			words += ", expires in " + span(f.Expires)
		}
		words += ": " + line(f.Error)
	}
	return words
}

// popCell says how the DNS sees a PoP.
func popCell(p gslb.PopStatus) ops.Cell {
	if p.Drained {
		return ops.Cell{Text: p.State + ", drained", Tone: ops.ToneWarn}
	}
	return ops.Cell{Text: p.State, Tone: map[string]ops.Tone{"up": ops.ToneOK, "unknown": ops.ToneWarn, "down": ops.ToneBad}[p.State]}
}
