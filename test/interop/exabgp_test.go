package interop

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/template"
)

// exabgp is ExaBGP. It keeps no table that a program could ask for: it writes
// what it receives, and what is read here is that.
type exabgp struct{ *site }

var exabgpConfig = template.Must(template.New("exabgp").Parse(`
process watcher {
	run {{.Dir}}/watch;
	encoder json;
}
{{- range .Links}}
neighbor {{.Ours}} {
	description "{{.Name}}";
	router-id {{$.ID}};
	local-address {{.Theirs}};
	local-as {{$.ASN}};
	peer-as {{$.EdgeASN}};
	hold-time {{$.Hold}};
	passive true;
	listen 179;
	{{- if .Password}}
	md5-password "{{.Password}}";
	{{- end}}
	{{- if .TTLSecurity}}
	incoming-ttl 255;
	outgoing-ttl 255;
	{{- end}}
	family {
		ipv4 unicast;
		ipv6 unicast;
	}
	{{- if .Six}}
	capability {
		nexthop enable;
	}
	nexthop {
		ipv4 unicast ipv6;
	}
	{{- end}}
	api {{.Name}} {
		processes [ watcher ];
		neighbor-changes;
		receive {
			parsed;
			update;
		}
	}
}
{{- end}}
`))

// exabgpWatch keeps its standard output open, where ExaBGP expects commands: the
// end of it would be the end of the program.
var exabgpWatch = template.Must(template.New("watch").Parse(`#!/bin/sh
cat >{{.Dir}}/events
exit 0
`))

func (x *exabgp) start(s *site) error {
	x.site = s
	if err := s.write("exabgp.conf", exabgpConfig, 0o644); err != nil {
		return err
	}
	if err := s.write("watch", exabgpWatch, 0o755); err != nil {
		return err
	}
	return s.daemon("env", "exabgp.daemon.user=root", "exabgp.api.cli=false", "/usr/sbin/exabgp", s.file("exabgp.conf"))
}

// exabgpEvent is a line that ExaBGP writes.
type exabgpEvent struct {
	Type     string
	Neighbor struct {
		Address struct{ Peer netip.Addr }
		State   string
		Reason  string
		Message struct{ Update exabgpUpdate }
	}
}

type exabgpUpdate struct {
	Attribute struct {
		ASPath         json.RawMessage `json:"as-path"`
		MED            uint32
		LocalPref      uint32 `json:"local-preference"`
		Community      [][2]uint32
		LargeCommunity [][3]uint32 `json:"large-community"`
	}
	// By family, then by next hop; and by family.
	Announce map[string]map[string][]struct{ NLRI netip.Prefix }
	Withdraw map[string][]struct{ NLRI netip.Prefix }
}

// events are all of them so far.
func (x *exabgp) events() ([]exabgpEvent, error) {
	text, err := os.ReadFile(x.file("events"))
	if err != nil {
		return nil, err
	}
	var all []exabgpEvent
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break // the rest comes later
		}
		var e exabgpEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("%w in %s", err, line)
		}
		all = append(all, e)
	}
	return all, nil
}

func (x *exabgp) established(l *link) (up bool, err error) {
	all, err := x.events()
	for _, e := range all {
		if e.Type == "state" && e.Neighbor.Address.Peer == l.ours {
			up = e.Neighbor.State == "up"
		}
	}
	return up, err
}

func (x *exabgp) lastError(l *link) (last string, err error) {
	all, err := x.events()
	for _, e := range all {
		if e.Neighbor.State == "down" && e.Neighbor.Address.Peer == l.ours {
			last = e.Neighbor.Reason
		}
	}
	return last, err
}

// paths are what the events leave of a prefix.
func (x *exabgp) paths(prefix netip.Prefix) ([]path, error) {
	events, err := x.events()
	if err != nil {
		return nil, err
	}
	var all []path
	for _, e := range events {
		from := e.Neighbor.Address.Peer
		forget := func() {
			all = slices.DeleteFunc(all, func(p path) bool { return p.from == from })
		}
		if e.Type == "state" {
			forget()
		}
		u := e.Neighbor.Message.Update
		for _, some := range u.Withdraw {
			for _, n := range some {
				if n.NLRI == prefix {
					forget()
				}
			}
		}
		for _, hops := range u.Announce {
			for hop, some := range hops {
				for _, n := range some {
					if n.NLRI != prefix {
						continue
					}
					forget()
					p, err := u.path(from, hop)
					if err != nil {
						return nil, err
					}
					all = append(all, p)
				}
			}
		}
	}
	return all, nil
}

func (u *exabgpUpdate) path(from netip.Addr, hop string) (path, error) {
	p := path{from: from, med: u.Attribute.MED, localPref: u.Attribute.LocalPref}
	var err error
	if p.nextHop, err = netip.ParseAddr(hop); err != nil {
		return path{}, err
	}
	if err := json.Unmarshal(u.Attribute.ASPath, &p.asPath); err != nil {
		return path{}, fmt.Errorf("AS path: %w", err)
	}
	for _, c := range u.Attribute.Community {
		p.community = append(p.community, fmt.Sprintf("%d:%d", c[0], c[1]))
	}
	for _, c := range u.Attribute.LargeCommunity {
		p.community = append(p.community, fmt.Sprintf("%d:%d:%d", c[0], c[1], c[2]))
	}
	return p, nil
}

func (x *exabgp) bfdUp(*link) (bool, error) { return false, nil }

func (x *exabgp) lacks(column string) string {
	switch column {
	case columnGTSM:
		return "ExaBGP 4.2 sends a TTL of 255 over IPv4 only, and requires none; the Speaker has no session over IPv6 then"
	case columnBFD:
		return "ExaBGP 4.2 speaks no BFD"
	case columnText:
		return "ExaBGP 4.2 on Python 3 fails to decode a text, and answers with a NOTIFICATION; the session ends all the same"
	case columnGraceful:
		return "ExaBGP selects no routes; its program saw the community"
	}
	return ""
}
