package topology

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"text/template"
	"time"
)

//go:embed templates
var templates embed.FS

var parsed = template.Must(template.ParseFS(templates, "templates/*"))

// Names of files that several machines read; their contents are not rendered
// here, since they are secrets or made from secrets.
const (
	Shared      = "shared" // the folder, beside those of the machines
	CAFile      = "ca.crt"
	CertFile    = "www.crt"
	KeyFile     = "www.key"
	SealingFile = "fleet.key"
)

// Timers of every BGP session that the lab's routers have.
const (
	HoldTime  = 3 * time.Second
	Keepalive = time.Second
)

// Files renders the config of every machine. The names are relative to the run
// folder: "<machine>/<file>".
func (p *Plan) Files() (map[string][]byte, error) {
	files := make(map[string][]byte)
	for _, m := range p.Machines {
		var err error
		switch m.Role {
		case CoreRouter, PopRouter:
			err = p.routerFiles(files, m)
		case Node:
			files[path.Join(m.Name, "pop.yaml")], err = p.nodeConfig(m)
		case DNSHost:
			err = p.dnsFiles(files, m)
		case ConsulHost:
			files[path.Join(m.Name, "consul.json")], err = p.consulConfig(m)
		}
		if err != nil {
			return nil, fmt.Errorf("render the config of %s: %w", m.Name, err)
		}
	}
	return files, nil
}

func (p *Plan) routerFiles(files map[string][]byte, m *Machine) error {
	names := []string{"bird.conf"}
	if m.Daemon == FRR {
		names = []string{"zebra.conf", "bgpd.conf", "bfdd.conf"}
	}
	for _, name := range names {
		text, err := render(name, map[string]any{
			"Machine": m, "Refused": p.refused(m), "Hold": int(HoldTime.Seconds()), "Keepalive": int(Keepalive.Seconds()),
			"BFD": p.BFD,
		})
		if err != nil {
			return err
		}
		files[path.Join(m.Name, name)] = text
	}
	return nil
}

// refused are the prefixes that a router takes from nodes only.
func (p *Plan) refused(m *Machine) []netip.Prefix {
	if m.Role != PopRouter || p.Pop(m.Pop).FullTable {
		return nil
	}
	return p.Service
}

func render(name string, data any) ([]byte, error) {
	var out bytes.Buffer
	err := parsed.ExecuteTemplate(&out, name, data)
	return out.Bytes(), err
}

// Networks4 and Networks6 are Networks by family, for templates.
func (m *Machine) Networks4() []netip.Prefix { return ofFamily(m.Networks, true) }

// Networks6 is the IPv6 half of Networks.
func (m *Machine) Networks6() []netip.Prefix { return ofFamily(m.Networks, false) }

func ofFamily(all []netip.Prefix, is4 bool) []netip.Prefix {
	var some []netip.Prefix
	for _, p := range all {
		if p.Addr().Is4() == is4 {
			some = append(some, p)
		}
	}
	return some
}

// Over4 reports whether the session carries IPv4 routes, for templates.
func (s Session) Over4() bool { return s.Node || s.Address.Is4() }

// Over6 reports whether the session carries IPv6 routes.
func (s Session) Over6() bool { return s.Node || s.Address.Is6() }

// consulConfig is a development server, whose state is in memory, with the
// origins in its catalog.
func (p *Plan) consulConfig(m *Machine) ([]byte, error) {
	type service struct {
		ID      string     `json:"id"`
		Name    string     `json:"name"`
		Tags    []string   `json:"tags"`
		Address netip.Addr `json:"address"`
		Port    int        `json:"port"`
	}
	var services []service
	for _, o := range p.Of(Origin, "") {
		services = append(services, service{o.Name, "web", []string{o.Pop}, o.Address(false), portOrigin})
	}
	return json.MarshalIndent(map[string]any{
		"bind_addr":            m.Address(false),
		"client_addr":          m.Address(false).String() + " 127.0.0.1",
		"ports":                map[string]int{"http": PortConsul, "dns": -1, "grpc": -1, "grpc_tls": -1, "https": -1},
		"disable_update_check": true,
		"ui_config":            map[string]bool{"enabled": false},
		"services":             services,
	}, "", "  ")
}

// OriginAddress is where a demo origin listens.
func (m *Machine) OriginAddress() netip.AddrPort {
	return netip.AddrPortFrom(m.Address(false), portOrigin)
}

// ConsulAddress is Consul's HTTP API.
func (p *Plan) ConsulAddress() netip.AddrPort {
	return netip.AddrPortFrom(p.Machine(machineConsul).Address(false), PortConsul)
}

// DNSAddress is where the DNS node answers.
func (p *Plan) DNSAddress() netip.AddrPort {
	return netip.AddrPortFrom(p.Machine(machineDNS).Address(false), PortDNS)
}
