package lab

import (
	"context"
	"fmt"
	"strings"
	"time"

	"anyedge/configs"
	"anyedge/internal/ops"
	"anyedge/pop"
)

// servePage serves the lab's status page until ctx ends.
func (l *Lab) servePage(ctx context.Context) error {
	return ops.New(ops.Config{
		Address: l.layout.status(),
		Name:    "lab",
		Page:    ops.StatusPage("anyedge lab", l.page),
		Log:     l.Log.With("part", "page"),
	}).Run(ctx)
}

// page is the whole edge at one moment, as its own parts tell it.
func (l *Lab) page(ctx context.Context) (ops.Page, error) {
	pops := ops.Section{
		Title:   "Points of presence",
		Note:    "What each node says of itself, and what the upstream router has of it.",
		Columns: []string{"PoP", "Health", "Announces", "Router has", "Clients", "Requests", "Backends", "Drain", "Fleet", "Why"},
	}
	for i, p := range l.cfg.Pops {
		pops.Rows = append(pops.Rows, l.popRow(ctx, i, p))
	}
	steering := ops.Section{
		Title:   "Where clients are sent",
		Note:    "Anycast follows the router's best path; DNS follows the client's network.",
		Columns: []string{"Client", "How", "To"},
		Rows:    [][]ops.Cell{{{Text: "everybody"}, {Text: "anycast " + l.layout.anycast(portTLS).String()}, l.bestCell()}},
	}
	for _, c := range l.cfg.Clients {
		steering.Rows = append(steering.Rows, l.clientRow(ctx, c))
	}
	return ops.Page{Generated: time.Now(), Sections: []ops.Section{pops, steering}}, nil
}

// popRow is one PoP. A node that does not answer is a row too.
func (l *Lab) popRow(ctx context.Context, n int, p configs.LabPop) []ops.Cell {
	route := l.routeOf(p.Name)
	name := fmt.Sprintf("%s (%s)", p.Name, l.layout.pop(n))
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := l.status(ctx, p)
	var pools pop.Pools
	if err == nil {
		err = l.admin(ctx, p, "/v1/pools", &pools)
	}
	if err != nil {
		return []ops.Cell{{Text: name}, {Text: "no answer", Tone: ops.ToneBad}, {}, {Text: route, Tone: tone(route)}, {}, {}, {}, {}, {}, {Text: err.Error(), Tone: ops.ToneDim}}
	}
	backends := ops.Cell{Tone: ops.ToneOK}
	for _, pool := range pools.Pools {
		backends.Text = fmt.Sprintf("%d of %d", pool.Usable, len(pool.Backends))
		if pool.Usable < len(pool.Backends) {
			backends.Tone = ops.ToneWarn
		}
	}
	fleet := ops.Cell{Text: "connected", Tone: ops.ToneOK}
	if !s.Fleet.Connected {
		fleet = ops.Cell{Text: "out of reach", Tone: ops.ToneWarn}
	}
	drain := ops.Cell{Text: string(s.Drain.Stage), Tone: ops.ToneDim}
	if s.Drain.Stage != pop.DrainNone {
		drain.Tone = ops.ToneWarn
	}
	health := s.Health.State.String()
	announced := string(s.Announcement.State)
	return []ops.Cell{
		{Text: name}, {Text: health, Tone: tone(health)}, {Text: announced, Tone: tone(announced)}, {Text: route, Tone: tone(route)},
		{Text: fmt.Sprint(s.Worker.Connections)}, {Text: fmt.Sprint(s.Worker.Requests)}, backends, drain, fleet,
		{Text: s.Announcement.Reason, Tone: ops.ToneDim},
	}
}

// tone maps the words of health and announcement to a look.
func tone(word string) ops.Tone {
	switch word {
	case "healthy", string(pop.Announced):
		return ops.ToneOK
	case "unknown", string(pop.Depreferred):
		return ops.ToneWarn
	}
	return ops.ToneBad
}

func (l *Lab) bestCell() ops.Cell {
	if best := l.bestPop(); best != "" {
		return ops.Cell{Text: best, Tone: ops.ToneOK}
	}
	return ops.Cell{Text: "nowhere", Tone: ops.ToneBad}
}

func (l *Lab) clientRow(ctx context.Context, c configs.LabClients) []ops.Cell {
	row := []ops.Cell{{Text: c.Prefix.String()}, {Text: "DNS " + l.host()}, {}}
	a, err := l.lookup(ctx, c.Prefix)
	switch {
	case err != nil:
		row[2] = ops.Cell{Text: err.Error(), Tone: ops.ToneBad}
	default:
		row[2] = ops.Cell{Text: fmt.Sprintf("%s (scope /%d)", strings.Join(l.popsOf(a), ", "), a.Scope), Tone: ops.ToneOK}
	}
	return row
}

// greet tells the user what there is to try.
func (l *Lab) greet() {
	first := l.first()
	www, port := l.host(), portTLS
	anycast := l.layout.anycast(portTLS)
	curl := fmt.Sprintf("curl --cacert %s --connect-to %s:%d:%s https://%s:%d/", l.path("ca.crt"), www, port, anycast, www, port)
	admin := l.adminAddress(first)
	lines := []struct{ what, how string }{
		{"status page", "http://" + l.layout.status().String() + "/"},
		{"be a client", curl},
		{"over HTTP/1.1", strings.Replace(curl, "curl ", "curl --http1.1 ", 1)},
	}
	for _, c := range l.cfg.Clients {
		lines = append(lines, struct{ what, how string }{"ask the DNS for " + c.Prefix.String(),
			fmt.Sprintf("dig @%s -p %d %s +short +subnet=%s", l.layout.dns().Addr(), portDNS, www, c.Prefix)})
	}
	lines = append(lines, []struct{ what, how string }{
		{"why that answer, and what if", fmt.Sprintf("%s steer --admin %s --name %s --client %s --without %s", l.Binary, l.layout.dnsAdmin(), www, l.cfg.Clients[0].Prefix, l.nearest(l.cfg.Clients[0]))},
		{"look at the DNS node", fmt.Sprintf("http://%v/, or %s status --admin %v", l.layout.dnsAdmin(), l.Binary, l.layout.dnsAdmin())},
		{"who goes where by the plan", fmt.Sprintf("%s steer plan --admin %s", l.Binary, l.layout.dnsAdmin())},
		{"look at " + first.Name, fmt.Sprintf("%s status --admin %s", l.Binary, admin)},
		{"drain it, and undrain it", fmt.Sprintf("%s drain --admin %s; %s undrain --admin %s", l.Binary, admin, l.Binary, admin)},
		{"hang its worker", fmt.Sprintf("kill -STOP $(%s status --admin %s --json | sed -n 's/^    \"pid\": \\([0-9]*\\),/\\1/p')", l.Binary, admin)},
		{"kill its agent", fmt.Sprintf("kill -9 $(cat %s)", l.path(first.Name+".pid"))},
		{"break its config", fmt.Sprintf("edit %s; kill -HUP $(cat %s)", l.path(first.Name+".yaml"), l.path(first.Name+".pid"))},
		{"configs and logs", l.dir},
	}...)
	for _, line := range lines {
		fmt.Fprintf(l.Out, "  %-34s %s\n", line.what, line.how)
	}
	fmt.Fprintln(l.Out, "\nInterrupt ends it.")
}
