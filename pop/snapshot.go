package pop

import (
	"errors"
	"fmt"
	"os"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/tickets"
	"anyedge/origin"
	"anyedge/pop/proxy"
	"anyedge/pop/termination"
)

// material is what a config's files hold: read once per reload, so that a
// snapshot never waits for a disk.
type material struct {
	certificates []termination.CertPEM
	clientCAs    []byte
	poolCAs      map[string][]byte // by pool
	neighbors    neighbors         // zero without BGP
}

// readMaterial reads every file that a reload of the config reads, and checks
// what it says about neighbors.
func readMaterial(cfg *configs.Pop) (*material, error) {
	m := &material{poolCAs: make(map[string][]byte)}
	var errs []error
	read := func(what, path string) []byte {
		if path == "" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
		return data
	}
	for i, c := range cfg.TLS.Certificates {
		at := fmt.Sprintf("tls.certificates[%d]", i)
		m.certificates = append(m.certificates, termination.CertPEM{
			Cert: read(at+".cert_file", c.CertFile),
			Key:  read(at+".key_file", c.KeyFile),
		})
	}
	m.clientCAs = read("tls.client_ca_file", cfg.TLS.ClientCAFile)
	for i, p := range cfg.Pools {
		if p.TLS != nil {
			m.poolCAs[p.Name] = read(fmt.Sprintf("pools[%d].tls.ca_file", i), p.TLS.CAFile)
		}
	}
	if cfg.BGP != nil {
		var err error
		if m.neighbors, err = readNeighbors(cfg.BGP); err != nil {
			errs = append(errs, err)
		}
	}
	return m, errors.Join(errs...)
}

// inventories are the backend sets that come from outside the config, by pool.
type inventories map[string][]fleet.Backend

// buildSnapshot joins config, files, inventory and ticket keys into what the
// worker runs. Pools whose inventory is not known yet start empty.
func buildSnapshot(cfg *configs.Pop, m *material, inv inventories, keys []tickets.Key) *proxy.Snapshot {
	s := &proxy.Snapshot{
		Node: cfg.Node.Name, Pop: cfg.Node.Pop, Region: cfg.Node.Region,
		Listeners:      cfg.Listeners,
		Certificates:   m.certificates,
		ClientCAs:      m.clientCAs,
		MinTLS:         cfg.TLS.MinVersion,
		Tickets:        keys,
		Routes:         cfg.Routes,
		MaxConnections: cfg.Worker.MaxConnections,
		BufferMemory:   cfg.Worker.BufferMemory,
		VitalsInterval: cfg.Health.VitalsInterval,
		DrainTimeout:   cfg.Worker.DrainTimeout,
		LogRequests:    cfg.Log.Requests,
		MeasureRTT:     *cfg.Measure.RTT,
	}
	for _, p := range cfg.Pools {
		s.Pools = append(s.Pools, proxy.Pool{Config: p, CA: m.poolCAs[p.Name], Backends: backends(p, inv)})
	}
	return s
}

func backends(p configs.Pool, inv inventories) origin.Set {
	set := origin.Set{}
	for _, b := range p.Backends {
		set = append(set, origin.Backend{Address: b.Address, Weight: b.Weight, Zone: b.Zone})
	}
	for _, b := range inv[p.Name] {
		set = append(set, origin.Backend{Address: b.Address, Weight: b.Weight, Zone: b.Zone})
	}
	return set
}
