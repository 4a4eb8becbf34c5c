package gslb

import (
	"errors"
	"fmt"
	"time"

	"anyedge/configs"
	"anyedge/gslb/steer"
)

// Check reads all that a config names, as a node does when it starts, and returns
// every problem: of zone files, the map of clients, the geolocation database,
// secrets, certificates, files of keys, and of steered names that do not fit the
// zones. It opens no sockets and asks nobody.
func Check(cfg *configs.GSLB) error {
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	_, err := readKeys(cfg)
	note(err)
	_, err = readCookieSecrets(cfg)
	note(err)
	_, err = readCertificate(cfg)
	note(err)
	for i := range cfg.Zones {
		s := cfg.Zones[i].DNSSEC
		if s == nil {
			continue
		}
		if err := policyOf(s).Validate(); err != nil {
			note(fmt.Errorf("zones[%d].dnssec: %w", i, err))
		}
		if s.KeyFile == "" {
			continue
		}
		if _, err := readKeyFile(s.KeyFile, canonical(cfg.Zones[i].Name)); err != nil {
			note(fmt.Errorf("zones[%d].dnssec.key_file: %w", i, err))
		}
	}
	clients, err := readClients(cfg)
	note(err)
	zones, err := loadZones(zonesOf(cfg))
	note(err)
	if err != nil {
		return errors.Join(errs...) // names cannot be held against half of the zones
	}
	for _, z := range zones {
		note(z.checkTTLs())
	}
	in := steer.Input{Clients: clients, Names: steerNames(cfg), Now: time.Now()}
	for _, p := range cfg.Pops {
		in.Pops = append(in.Pops, steer.Pop{Name: p.Name, Lat: p.Latitude, Lon: p.Longitude, Addresses: p.Addresses})
	}
	table, err := BuildTable(in)
	note(err)
	if err == nil {
		_, err = join(zones, table, nil)
		note(err)
	}
	return errors.Join(errs...)
}
