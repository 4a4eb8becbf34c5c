package configs

import "net/netip"

// GSLB is the config of one DNS node, read by "anyedge gslb".
type GSLB struct {
	// Node says who this node is. Pop, Region and place are optional here.
	Node Node `yaml:"node"`
	// Fleet says where reports and drains come from.
	Fleet Fleet `yaml:"fleet"`
	// Listen are the addresses served, each over UDP and TCP. At least one.
	Listen []netip.AddrPort `yaml:"listen" required:"true"`
	// Zones are served from standard zone files (RFC 1035 section 5). At least
	// one.
	Zones []Zone `yaml:"zones" required:"true"`
	// Pops are the points of presence that steered names can answer with.
	Pops []SteerPop `yaml:"pops"`
	// Clients is a CSV file of client networks and their place: lines of
	// "prefix,latitude,longitude"; "#" starts a comment.
	Clients string `yaml:"clients" file:"public"`
	// Names are the steered names.
	Names []SteeredName `yaml:"names"`
	// Admin is the operator's API. Default address 127.0.0.1:8601.
	Admin Admin `yaml:"admin"`
	// Log is the form and level of log lines.
	Log Log `yaml:"log"`
}

// Zone is one zone and its file.
type Zone struct {
	// Name is the apex, such as "edge.example".
	Name string `yaml:"name" required:"true" format:"domain"`
	// File is the zone file, relative to the config file.
	File string `yaml:"file" required:"true" file:"public"`
}

// SteerPop is a point of presence as the DNS sees it.
type SteerPop struct {
	// Name as in the nodes' node.pop; unique in the file.
	Name string `yaml:"name" required:"true" format:"name"`
	// Latitude in degrees north, -90 to 90.
	Latitude float64 `yaml:"latitude" range:"-90..90"`
	// Longitude in degrees east, -180 to 180.
	Longitude float64 `yaml:"longitude" range:"-180..180"`
	// Addresses answer A and AAAA queries. At least one.
	Addresses []netip.Addr `yaml:"addresses" required:"true"`
}

// SteeredName is a name whose addresses are chosen per query.
type SteeredName struct {
	// Name is fully qualified and lies in one of the zones.
	Name string `yaml:"name" required:"true" format:"domain"`
	// Policy is nearest, weighted or failover.
	Policy string `yaml:"policy" required:"true" enum:"nearest weighted failover"`
	// TTL of the answers, in whole seconds. Default 20s, 1s to 1h.
	TTL Duration `yaml:"ttl" default:"20s" range:"1s..1h"`
	// Answers are the candidates, at least one; for failover in order of
	// preference.
	Answers []SteerAnswer `yaml:"answers" required:"true"`
}

// SteerAnswer is one candidate.
type SteerAnswer struct {
	// Pop names an entry of pops.
	Pop string `yaml:"pop" required:"true"`
	// Weight is its share under the weighted policy, 0 to 1000. Default 1.
	Weight *int `yaml:"weight" default:"1" range:"0..1000"`
}
