package pop

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"anyedge/bgp"
	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/pop/guard"
)

// Explanation is what "anyedge explain" and GET /v1/explain show: why a route is
// or is not announced right now, and the decisions that led there.
type Explanation struct {
	Node string `json:"node"`
	// Prefix is the one that was asked about; zero: all.
	Prefix       netip.Prefix       `json:"prefix,omitzero"`
	Announcement AnnouncementStatus `json:"announcement"`
	// Sentences say it in words, the most important first.
	Sentences []string `json:"sentences"`
	// Decisions are the newest, the oldest first.
	Decisions []Decision `json:"decisions"`
}

// Explain says why the service prefixes, or one of them, are announced as they
// are, with the last decisions.
func (a *Agent) Explain(prefix netip.Prefix, decisions int) Explanation {
	cfg := a.conf.config()
	x := explanation{node: a.started.Node, cfg: cfg.BGP, vrrp: len(cfg.VRRP) > 0, prefix: prefix, status: a.Status(), now: time.Now()}
	if a.upstreams != nil {
		s := a.upstreams.speaker.Status()
		x.bgp = &s
	}
	e := Explanation{
		Node: x.node.Name, Prefix: prefix, Announcement: x.status.Announcement,
		Decisions: a.controller.record.newest(decisions),
	}
	if last := a.controller.record.newest(1); len(last) == 1 {
		x.last = &last[0]
	}
	e.Sentences = x.sentences()
	return e
}

// explanation puts what is known into sentences. It does no I/O.
type explanation struct {
	node   configs.Node
	cfg    *configs.BGP // nil: nothing is announced by BGP
	vrrp   bool         // VRRP keeps its addresses on one node of the PoP
	prefix netip.Prefix // zero: all
	status Status
	last   *Decision   // nil before the first
	bgp    *bgp.Status // nil without BGP
	now    time.Time
}

func (x *explanation) sentences() []string {
	switch {
	case x.cfg == nil && !x.vrrp:
		return []string{fmt.Sprintf("%s announces nothing: its config has neither a bgp nor a vrrp section.", x.node.Name)}
	case x.cfg == nil && x.prefix.IsValid():
		return []string{fmt.Sprintf("%s has addresses by VRRP and announces no prefix.", x.node.Name)}
	case x.prefix.IsValid() && !slices.Contains(x.cfg.Prefixes, x.prefix):
		return []string{fmt.Sprintf("%s is no service prefix of %s; those are %s.", x.prefix, x.node.Name, join(x.cfg.Prefixes))}
	case x.last == nil:
		return []string{fmt.Sprintf("%s announces nothing: its agent has just started and has decided nothing yet.", x.node.Name)}
	}
	all := []string{x.headline()}
	if x.vrrp {
		all = append(all, x.election())
	}
	all = append(all, x.why()...)
	all = append(all, x.guard()...)
	all = append(all, x.apart()...)
	all = append(all, x.around()...)
	return append(all, x.neighbors()...)
}

// headline says what is announced, and since when.
func (x *explanation) headline() string {
	what := "its service prefixes"
	if x.vrrp {
		what = "its service addresses"
	}
	if x.prefix.IsValid() {
		what = x.prefix.String()
	}
	a, s := x.last.Announced, x.status.Announcement
	if x.prefix.IsValid() {
		a = x.last.Prefixes.of(x.prefix, a)
	}
	how := map[Announcement]string{
		Announced:   "announces " + what,
		Depreferred: "announces " + what + ", but de-preferred, so that traffic goes elsewhere where it can",
		Withdrawn:   "does not announce " + what,
	}[a]
	if a != x.last.Announced {
		return fmt.Sprintf("%s (PoP %s) %s.", x.node.Name, x.node.Pop, how)
	}
	return fmt.Sprintf("%s (PoP %s) %s, since %s.", x.node.Name, x.node.Pop, how, x.since(s.Since))
}

// election says what the announcement means for a node with VRRP.
func (x *explanation) election() string {
	switch x.last.Announced {
	case Announced:
		return "With VRRP that means: it is in the election with its normal priority."
	case Depreferred:
		return "With VRRP that means: it is in the election with its low priority, and serves while nobody better does."
	}
	return "With VRRP that means: it is out of the election, and has none of the addresses."
}

// why says what the announcement follows from.
func (x *explanation) why() []string {
	d := x.last
	switch d.Rule {
	case RuleHealthy:
		if len(x.apart()) > 0 {
			return []string{"Every check passes."}
		}
		return []string{"Every check passes, and nobody asks for anything else."}
	case RuleLocalFailure:
		all := []string{fmt.Sprintf("The node itself cannot serve: %s.", d.Health.Reason)}
		if until := d.Health.HoldUntil; until.After(x.now) {
			all = append(all, fmt.Sprintf("After its last failure it counts as unable until %s at least (hold-down).", stamp(until)))
		}
		return all
	case RuleUnknown:
		return []string{fmt.Sprintf("It is not known whether the node can serve, and not knowing changes nothing: %s.", d.Health.Reason)}
	case RuleRoom:
		return []string{fmt.Sprintf("The node is short of room: %s.", d.Room)}
	case RuleRemote:
		return []string{fmt.Sprintf("Something remote is in trouble, which never withdraws a route: %s.", d.Remote)}
	case RuleOverride:
		if len(d.Overrides) > 0 {
			return []string{x.override(d.Overrides[0])}
		}
	case RuleDrain:
		if r := d.Drain.Request; r != nil {
			return []string{
				fmt.Sprintf("A drain of %s%s is in force.", scopeName(r.Scope, r.Name), orderDetails(r.By, r.Reason, r.At, r.Until)),
				fmt.Sprintf("The drain is at stage %q since %s.", x.status.Drain.Stage, x.since(x.status.Drain.Since)),
			}
		}
	}
	return []string{"The reason: " + d.Reason + "."}
}

// serves reports whether p is a service prefix of the node.
func (x *explanation) serves(p netip.Prefix) bool {
	return x.cfg != nil && slices.Contains(x.cfg.Prefixes, p)
}

// override says who ordered what.
func (x *explanation) override(o fleet.Override) string {
	force := ""
	if o.Force {
		force = " BY FORCE, past the safeguards,"
	}
	on := scopeName(o.Scope, o.Name)
	if o.Prefix.IsValid() {
		on = o.Prefix.String() + " on " + on
	}
	return fmt.Sprintf("An override to %s%s is in force for %s%s.", o.Action, force, on, orderDetails(o.By, o.Reason, o.At, o.Until))
}

// guard says what the guard has to do with it.
func (x *explanation) guard() []string {
	g := x.last.Guard
	if x.last.Wanted != Withdrawn || g.Answer == "not_asked" {
		return nil
	}
	first := map[string]string{
		"waiting":     "It wants to withdraw, and waits for the guard's answer.",
		"granted":     "The guard has granted the withdrawal.",
		"refused":     "It wants to withdraw, and the guard refuses, so it stays announced, less attractive.",
		"busy":        "It wants to withdraw, but the fleet store is too busy to grant it.",
		"unreachable": "It cannot ask the guard: the fleet store is out of reach.",
	}[g.Answer]
	if x.last.Announced == Withdrawn && g.Answer == "refused" {
		first = "It is out already; the guard would refuse."
	}
	all := []string{first}
	if a := g.Asked; a != nil {
		all = append(all, guardFigures(a))
	}
	return all
}

// guardFigures says what the guard ruled on.
func guardFigures(a *GuardAsk) string {
	var b strings.Builder
	if a.Cause != "" {
		fmt.Fprintf(&b, "Refused by the rule %s: %s. ", a.Cause, a.Detail)
	}
	f, p := a.Figures, a.Policy
	fmt.Fprintf(&b, "Asked at %s: other PoPs that serve %d (min_pops %d), out by lease %d (max_out %d)", stamp(a.At), f.Serving, p.MinPops, len(f.Out), p.MaxOut)
	if len(f.Out) > 0 {
		fmt.Fprintf(&b, ": %s", strings.Join(f.Out, ", "))
	}
	fmt.Fprintf(&b, "; turned unhealthy within %s %d of %d PoPs (share %.0f%%)", p.Window, len(f.Sick), f.Known, 100*p.Share)
	if f.Siblings > 0 {
		fmt.Fprintf(&b, "; other serving nodes of this PoP %d", f.Siblings)
	}
	if len(a.Frozen) > 0 {
		fmt.Fprintf(&b, "; the fleet is frozen for %s", strings.Join(a.Frozen, ", "))
	}
	if f.Plan != nil {
		b.WriteString("; " + planned(f.Plan))
	}
	return b.String() + "."
}

// planned says what the plan says about the loss of this PoP.
func planned(p *guard.Plan) string {
	age := time.Duration(p.Age * float64(time.Second)).Round(time.Second)
	switch {
	case !p.Fresh:
		return fmt.Sprintf("the plan of %s does not count, it was last seen to change %s ago", p.By, age)
	case p.Worst == "" && p.Holds:
		return fmt.Sprintf("by the plan of %s (%s old) nobody would have to go anywhere else", p.By, age)
	case p.Worst == "":
		return fmt.Sprintf("by the plan of %s (%s old) its clients would have no other PoP", p.By, age)
	}
	text := fmt.Sprintf("by the plan of %s (%s old) %s would then be the fullest PoP, at %.0f%% of its ceiling", p.By, age, p.Worst, 100*p.Utilization)
	if !p.Holds {
		text += ", and some clients would find no room"
	}
	return text
}

// apart names what is announced unlike the rest.
func (x *explanation) apart() []string {
	var all []string
	for _, d := range x.last.Drain.Prefixes {
		if x.prefix.IsValid() && d.Prefix != x.prefix || !x.serves(d.Prefix) {
			continue
		}
		all = append(all, fmt.Sprintf("A drain of %s on %s%s de-prefers it, and no more.", d.Prefix, scopeName(d.Scope, d.Name), orderDetails(d.By, d.Reason, d.At, d.Until)))
	}
	for i, o := range x.last.Overrides {
		ofAll := i == 0 && !o.Prefix.IsValid()
		mine := o.Prefix.IsValid() && x.serves(o.Prefix) && (!x.prefix.IsValid() || o.Prefix == x.prefix)
		if mine || ofAll && x.last.Rule != RuleOverride {
			all = append(all, x.override(o))
		}
	}
	if d := x.last.Drain; d.Request != nil && d.Stage == DrainNone {
		all = append(all, fmt.Sprintf("The drain of %s waits for the end of the override.", scopeName(d.Request.Scope, d.Request.Name)))
	}
	return all
}

// around says what else matters.
func (x *explanation) around() []string {
	var all []string
	if f := x.status.Fleet; !f.Connected {
		all = append(all, fmt.Sprintf("The fleet store is out of reach since %s; what was known stays, and only a node that cannot serve withdraws.", x.since(f.Since)))
	}
	if s := x.status.Worker.Shed; s > 0 {
		all = append(all, fmt.Sprintf("%d%% of new requests are refused with 503, because the node cannot carry them.", s))
	}
	if x.last.FleetFrozen {
		all = append(all, "The fleet is frozen: too many PoPs turned unhealthy together, so nobody withdraws.")
	}
	if x.last.SpeakerError != "" {
		all = append(all, fmt.Sprintf("The speaker did not take the announcement at once, and goes on trying: %s.", x.last.SpeakerError))
	}
	return all
}

// neighbors says what each of them has been told.
func (x *explanation) neighbors() []string {
	var all []string
	if x.bgp == nil {
		return nil
	}
	for _, n := range x.bgp.Neighbors {
		name := fmt.Sprintf("%s (AS%d)", n.Address, n.ASN)
		if n.EstablishedSince.IsZero() {
			text := fmt.Sprintf("%s has nothing: the session is in state %s", name, n.State)
			if n.LastError != "" {
				text += ": " + n.LastError
			}
			all = append(all, text+".")
			continue
		}
		var has []netip.Prefix
		for _, p := range n.AdjRIBOut {
			if !x.prefix.IsValid() || p.Prefix == x.prefix {
				has = append(has, p.Prefix)
			}
		}
		told := "no route"
		if len(has) > 0 {
			told = join(has)
		}
		all = append(all, fmt.Sprintf("%s has been told %s; the session is up since %s.", name, told, x.since(n.EstablishedSince)))
	}
	return all
}

// since writes a time and how long ago it was.
func (x *explanation) since(t time.Time) string {
	return fmt.Sprintf("%s (%s)", stamp(t), x.now.Sub(t).Round(time.Second))
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func scopeName(scope, name string) string {
	switch scope {
	case fleet.ScopePop:
		return "PoP " + name
	case fleet.ScopeFleet:
		return "the whole fleet"
	default:
		return scope + " " + name
	}
}

// orderDetails says who asked for something, when, why and until when.
func orderDetails(by, reason string, at, until time.Time) string {
	var b strings.Builder
	if by != "" {
		fmt.Fprintf(&b, " by %s", by)
	}
	if !at.IsZero() {
		fmt.Fprintf(&b, " since %s", stamp(at))
	}
	if !until.IsZero() {
		fmt.Fprintf(&b, " until %s", stamp(until))
	}
	if reason != "" {
		fmt.Fprintf(&b, ", for %q", reason)
	}
	return b.String()
}

func join[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, ", ")
}
