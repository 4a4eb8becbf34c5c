package configs

import "net/netip"

// Lab is the config of "anyedge lab": a whole edge on one machine.
type Lab struct {
	// Network is a /16 inside 127.0.0.0/8 whose addresses the lab uses, other
	// than 127.0.0.0/16. Default 127.77.0.0/16.
	Network netip.Prefix `yaml:"network" default:"127.77.0.0/16"`
	// Prefixes are what every PoP announces. Default 192.0.2.0/24 and
	// 2001:db8:1::/48.
	Prefixes []netip.Prefix `yaml:"prefixes"`
	// Zone is the DNS zone. Default edge.example; "www." in it is steered.
	Zone string `yaml:"zone" default:"edge.example" format:"domain"`
	// Pops are the points of presence, 1 to 8. Default fra, iad and sin. The
	// order is the upstream router's order of preference.
	Pops []LabPop `yaml:"pops"`
	// Clients are networks and their place, for the DNS. Default
	// 198.51.100.0/24 in Paris, 203.0.113.0/24 in Tokyo and 2001:db8:100::/40 in
	// New York.
	Clients []LabClients `yaml:"clients"`
	// Rate is the steady load of the check, in requests per second, 1 to
	// 2000. Default 240.
	Rate int `yaml:"rate" default:"240" range:"1..2000"`
}

// LabPop is a point of presence of the lab.
type LabPop struct {
	// Name of the point of presence.
	Name string `yaml:"name" required:"true" format:"name"`
	// Region of the point of presence.
	Region string `yaml:"region" required:"true" format:"name"`
	// Latitude in degrees north, -90 to 90.
	Latitude float64 `yaml:"latitude" range:"-90..90"`
	// Longitude in degrees east, -180 to 180.
	Longitude float64 `yaml:"longitude" range:"-180..180"`
	// Origins is how many demo origins its region runs, 1 to 8. Default 2.
	Origins int `yaml:"origins" default:"2" range:"1..8"`
}

// LabClients is a client network and its place.
type LabClients struct {
	// Prefix of the client network.
	Prefix netip.Prefix `yaml:"prefix" required:"true"`
	// Latitude in degrees north, -90 to 90.
	Latitude float64 `yaml:"latitude" range:"-90..90"`
	// Longitude in degrees east, -180 to 180.
	Longitude float64 `yaml:"longitude" range:"-180..180"`
}
