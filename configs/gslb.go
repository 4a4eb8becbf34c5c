package configs

import "net/netip"

// GSLB is the config of one DNS node, read by "anyedge gslb".
type GSLB struct {
	// Node says who this node is. Pop, Region and place are optional here.
	Node Node `yaml:"node" restart:"change"`
	// Fleet says where reports and drains come from.
	Fleet Fleet `yaml:"fleet" restart:"change"`
	// Listen are the addresses served, each over UDP and TCP. At least one.
	Listen []netip.AddrPort `yaml:"listen" required:"true" restart:"change"`
	// Encrypted serves DNS over TLS and over HTTPS too. Default: neither.
	Encrypted *EncryptedDNS `yaml:"encrypted"`
	// NSID identifies this server to who asks for it (RFC 5001), also as id.server and
	// hostname.bind in class CH (RFC 4892). Default none.
	NSID string `yaml:"nsid"`
	// CookieFile holds the secrets of server cookies (RFC 9018), each a line of 32
	// hexadecimal digits; the first makes cookies, all are taken. Servers behind
	// one address share it. Default: a random secret from start to stop.
	CookieFile string `yaml:"cookie_file" file:"secret"`
	// RateLimit bounds equal answers over UDP. Default: no limit.
	RateLimit *DNSRateLimit `yaml:"rate_limit" restart:"change"`
	// XDP answers usual queries in the network driver. Default: the sockets answer all.
	XDP *DNSXDP `yaml:"xdp" restart:"change"`
	// Keys sign messages between servers (TSIG, RFC 8945).
	Keys []DNSKey `yaml:"keys"`
	// Resolvers are asked for the addresses of aliases, the first that answers. Needed
	// for aliases of names that are not steered. All of them are asked, over TCP, for
	// the DS records of signed zones, without which rollovers wait for "anyedge dnssec
	// seen"; so the way to them must be trusted.
	Resolvers []netip.AddrPort `yaml:"resolvers" restart:"change"`
	// Zones are served from standard zone files (RFC 1035 section 5), or as copies
	// of other servers' zones. At least one.
	Zones []Zone `yaml:"zones" required:"true"`
	// Pops are the points of presence that steered names can answer with.
	Pops []SteerPop `yaml:"pops"`
	// Clients is a CSV file of client networks and their place: lines of
	// "prefix,latitude,longitude"; "#" starts a comment.
	Clients string `yaml:"clients" file:"public"`
	// Geo places client networks by a geolocation database; of networks in both,
	// the entry of clients counts.
	Geo *Geo `yaml:"geo"`
	// Names are the steered names.
	Names []SteeredName `yaml:"names"`
	// Steering is how measured latency and load decide.
	Steering Steering `yaml:"steering"`
	// Admin is the operator's API. Default address 127.0.0.1:8601.
	Admin Admin `yaml:"admin" restart:"change"`
	// Log is the form and level of log lines.
	Log Log `yaml:"log"`
}

// Geo is a geolocation database, read again on reload.
type Geo struct {
	// File is a MaxMind DB file whose records have coordinates, time zones or
	// countries, such as GeoLite2-City.mmdb.
	File string `yaml:"file" required:"true" file:"public"`
	// Points says where time zones and countries are: zone.tab or zone1970.tab of
	// the time zone database. Default /usr/share/zoneinfo/zone.tab.
	Points string `yaml:"points" default:"/usr/share/zoneinfo/zone.tab" file:"public"`
}

// EncryptedDNS is DNS over TLS (RFC 7858) and over HTTPS (RFC 8484).
type EncryptedDNS struct {
	// DoT are the addresses of DNS over TLS, usually of port 853.
	DoT []netip.AddrPort `yaml:"dot" restart:"change"`
	// DoH are the addresses of DNS over HTTPS; the path is /dns-query.
	DoH []netip.AddrPort `yaml:"doh" restart:"change"`
	// CertFile is the certificate and its chain, in PEM; read again on reload.
	CertFile string `yaml:"cert_file" required:"true" file:"public"`
	// KeyFile is its key, in PEM.
	KeyFile string `yaml:"key_file" required:"true" file:"secret"`
}

// DNSRateLimit bounds how many equal answers go to one network over UDP. Clients
// that show a server cookie are not limited.
type DNSRateLimit struct {
	// Responses per second of one answer to an IPv4 /24 or an IPv6 /56.
	Responses int `yaml:"responses" required:"true" range:"1..1000000"`
	// Slip: one in so many answers over the limit is sent truncated, so that a true
	// client asks over TCP. 0 sends none. Default 2.
	Slip *int `yaml:"slip" default:"2" range:"0..100"`
	// Exempt are networks that are not limited.
	Exempt []netip.Prefix `yaml:"exempt"`
}

// DNSXDP is the program that answers ahead of the sockets. It needs the
// capabilities BPF, PERFMON and NET_ADMIN. Answers are not seen by the host's firewall.
type DNSXDP struct {
	// Interface is the network interface that queries come from.
	Interface string `yaml:"interface" required:"true"`
	// Mode is native, in the driver, or generic, for drivers that cannot. Default
	// native.
	Mode string `yaml:"mode" default:"native" enum:"native generic"`
}

// DNSKey is a key that messages are signed with.
type DNSKey struct {
	// Name is what both servers call it.
	Name string `yaml:"name" required:"true" format:"domain"`
	// Algorithm of the signatures. Default hmac-sha256.
	Algorithm string `yaml:"algorithm" default:"hmac-sha256" enum:"hmac-sha256 hmac-sha384 hmac-sha512"`
	// SecretFile holds the secret, in base64.
	SecretFile string `yaml:"secret_file" required:"true" file:"secret"`
}

// ZoneTransfer says who may copy a zone (AXFR, IXFR) and who is told when it
// changes (NOTIFY). Copies have what the file says; they do not steer.
type ZoneTransfer struct {
	// Allow are the networks that may copy it. Default: any, if keys are named.
	Allow []netip.Prefix `yaml:"allow"`
	// Keys are the keys a request must be signed by one of. Default: none is
	// needed, if networks are named.
	Keys []string `yaml:"keys"`
	// Notify are the servers that are told.
	Notify []DNSPeer `yaml:"notify"`
}

// DNSPeer is another server.
type DNSPeer struct {
	// Address of the server.
	Address netip.AddrPort `yaml:"address" required:"true"`
	// Key signs what goes there. Default: nothing is signed.
	Key string `yaml:"key"`
}

// Zone is one zone: its file, or where it is copied from.
type Zone struct {
	// Name is the apex, such as "edge.example".
	Name string `yaml:"name" required:"true" format:"domain"`
	// File is the zone file, relative to the config file. File or primaries.
	File string `yaml:"file" file:"public"`
	// Primaries are the servers that the zone is copied from; the first that
	// answers is taken. What they have signed is served as it is.
	Primaries []DNSPeer `yaml:"primaries"`
	// CopyFile keeps the copy of a zone with primaries, for a start while none of them
	// answers. The node writes it. Default: none.
	CopyFile string `yaml:"copy_file" file:"state"`
	// Alias gives the apex the addresses of another name: of a steered one by its
	// decisions, of others as resolvers give them. Default: the file's own.
	Alias string `yaml:"alias" format:"domain"`
	// Transfer says who may copy the zone. Default: nobody.
	Transfer *ZoneTransfer `yaml:"transfer"`
	// DNSSEC signs the zone. All DNS nodes of a fleet give it the same. Default: it
	// is not signed.
	DNSSEC *ZoneDNSSEC `yaml:"dnssec"`
}

// ZoneDNSSEC says how a zone is signed, with keys that the nodes make and roll over
// themselves. How long each step of a rollover waits follows from the durations
// here (RFC 7583): what they say is relied on.
type ZoneDNSSEC struct {
	// Algorithm of new keys. Another one than that of the keys in use begins the
	// rollover to it. Default ecdsa-p256.
	Algorithm string `yaml:"algorithm" default:"ecdsa-p256" enum:"ecdsa-p256 ed25519"`
	// Keys is csk for one key that signs everything, or ksk_zsk for one that signs
	// the keys, which the parent knows, and one that signs the rest. Default csk.
	Keys string `yaml:"keys" default:"csk" enum:"csk ksk_zsk"`
	// Denial is how it is proved that something does not exist: compact (RFC 9824)
	// or nsec3 (RFC 5155). Default compact.
	Denial string `yaml:"denial" default:"compact" enum:"compact nsec3"`
	// ZSKLifetime is how long a ZSK signs. Default 2160h; 0s: until it is rolled over
	// by hand.
	ZSKLifetime *Duration `yaml:"zsk_lifetime" default:"2160h" range:"0s..87600h"`
	// KSKLifetime is how long a KSK or CSK serves. Default 0s: until it is rolled
	// over by hand.
	KSKLifetime Duration `yaml:"ksk_lifetime" range:"0s..87600h"`
	// Propagation is how long it takes at most until every DNS node has new keys,
	// and how much their clocks may differ. A node that is without the fleet's store
	// for longer during a rollover may be bogus. Default 1h.
	Propagation Duration `yaml:"propagation" default:"1h" range:"10s..168h"`
	// MaxTTL is the longest TTL that the zone may have; one with a longer TTL is
	// refused. To lengthen TTLs, first raise this. Default 24h, 1h to 48h.
	MaxTTL Duration `yaml:"max_ttl" default:"24h" range:"1h..48h"`
	// ParentDSTTL is the TTL of the zone's DS records at its parent. Default 24h.
	ParentDSTTL Duration `yaml:"parent_ds_ttl" default:"24h" range:"0s..168h"`
	// ParentPropagation is how long it takes at most until all servers of the parent
	// have new DS records. Default 1h.
	ParentPropagation Duration `yaml:"parent_propagation" default:"1h" range:"0s..168h"`
	// KeyFile keeps a copy of the keys, readable by its owner only, for a start
	// without the fleet's store. The node writes it. Required with fleet.memory;
	// default: none.
	KeyFile string `yaml:"key_file" file:"state"`
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
	// Anycast is true for addresses that no PoP has alone: those that all announce.
	// They can answer while any PoP is up. Such an entry has no place. Default
	// false.
	Anycast bool `yaml:"anycast"`
}

// SteeredName is a name whose addresses are chosen per query.
type SteeredName struct {
	// Name is fully qualified and lies in one of the zones. It may be a wildcard such
	// as "*.apps.edge.example", which stands for the names below that are not there
	// (RFC 4592).
	Name string `yaml:"name" required:"true" format:"owner"`
	// Policy is how one of the answers is chosen: nearest by place, weighted by lot,
	// failover by order, sticky by lot but the same for a client network each time,
	// latency by measured round-trip time, capacity by a plan that keeps PoPs within
	// their ceilings. Where capacity knows nothing it is latency, and latency
	// nearest.
	Policy string `yaml:"policy" required:"true" enum:"nearest weighted failover sticky latency capacity"`
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
	// Weight is its share under the policies weighted and sticky, 0 to 1000. Default 1.
	Weight *int `yaml:"weight" default:"1" range:"0..1000"`
}
