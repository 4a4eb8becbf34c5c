package configs

import "net/netip"

// Pop is the config of one node of a point of presence, read by "anyedge pop".
type Pop struct {
	// Node says who and where this node is.
	Node Node `yaml:"node" restart:"change"`
	// Fleet says where shared state lives.
	Fleet Fleet `yaml:"fleet" restart:"change"`
	// Listeners are the sockets that serve clients. At least one.
	Listeners []Listener `yaml:"listeners" required:"true"`
	// TLS holds what every TLS listener shares.
	TLS TLS `yaml:"tls"`
	// Routes map requests to pools; the most specific host, then the longest
	// path wins. At least one.
	Routes []Route `yaml:"routes" required:"true"`
	// Pools are named sets of backends. At least one.
	Pools []Pool `yaml:"pools" required:"true"`
	// BGP announces the service prefixes. Without it nothing is announced.
	BGP *BGP `yaml:"bgp" restart:"presence"`
	// VRRP keeps service addresses on one node of a small PoP whose routers do not
	// speak BGP, in place of bgp.
	VRRP []VRRP `yaml:"vrrp" restart:"change"`
	// Health says when the node counts as able to serve.
	Health Health `yaml:"health" restart:"change"`
	// Guard bounds how much of the fleet may withdraw at once.
	Guard Guard `yaml:"guard" restart:"change"`
	// Drain is the pace at which a node is taken out of service.
	Drain Drain `yaml:"drain"`
	// Measure says what is measured about clients, for the DNS nodes to steer by.
	Measure Measure `yaml:"measure" restart:"change"`
	// Worker bounds the worker process.
	Worker Worker `yaml:"worker"`
	// Admin is the operator's API.
	Admin Admin `yaml:"admin" restart:"change"`
	// Log is the form and level of log lines on standard error.
	Log Log `yaml:"log"`
}

// Node identifies a node and places it on the globe.
type Node struct {
	// Name is unique in the fleet: letters, digits, "-", "_" and ".", at most
	// 63, a letter or digit first.
	Name string `yaml:"name" required:"true" format:"name"`
	// Pop is the point of presence the node belongs to. Required but for a DNS
	// node; a name like the node's.
	Pop string `yaml:"pop" format:"name"`
	// Region groups points of presence; a name like the node's.
	Region string `yaml:"region" format:"name"`
	// Latitude in degrees north, -90 to 90.
	Latitude float64 `yaml:"latitude" range:"-90..90"`
	// Longitude in degrees east, -180 to 180.
	Longitude float64 `yaml:"longitude" range:"-180..180"`
}

// Fleet names the store of shared state: exactly one of memory and consul.
type Fleet struct {
	// Memory keeps shared state inside this process: a fleet of one.
	Memory bool `yaml:"memory"`
	// Consul keeps shared state in Consul's key-value store.
	Consul *Consul `yaml:"consul"`
	// KeyFile holds the keys that seal secrets at rest, one 32-byte key in
	// base64 or hex per line, the sealing key first. Required with consul.
	KeyFile string `yaml:"key_file" file:"secret"`
	// ReportInterval is the pace of this node's reports. Default 1s.
	ReportInterval Duration `yaml:"report_interval" default:"1s" range:"10ms..1m"`
	// ReportTTL is the age at which a node's report no longer counts.
	// Default 5s, at least twice report_interval.
	ReportTTL Duration `yaml:"report_ttl" default:"5s" range:"20ms..1h"`
}

// Consul is how to reach Consul.
type Consul struct {
	// Address is host:port, an http or https URL, or "unix:///path".
	Address string `yaml:"address" required:"true"`
	// TokenFile holds the ACL token; it is read again when it changes.
	TokenFile string `yaml:"token_file" file:"secret"`
	// Prefix is put before every key; it ends with "/". Default "anyedge/".
	Prefix string `yaml:"prefix" default:"anyedge/"`
	// CAFile verifies the server; its presence turns TLS on.
	CAFile string `yaml:"ca_file" file:"public"`
	// CertFile authenticates this node to Consul, together with key_file.
	CertFile string `yaml:"cert_file" file:"public"`
	// KeyFile is the key of cert_file.
	KeyFile string `yaml:"key_file" file:"secret"`
	// Datacenter owns the keys. Default: the agent's own.
	Datacenter string `yaml:"datacenter"`
}

// Listener is one service address.
type Listener struct {
	// Name is unique in the file.
	Name string `yaml:"name" required:"true" format:"name"`
	// Address is "ip:port".
	Address netip.AddrPort `yaml:"address" required:"true"`
	// Clear serves clear text. Default false: TLS is terminated.
	Clear bool `yaml:"clear"`
	// Protocols are spoken to clients: h1, h2, h3. Default h1 and h2 on TLS; h1
	// in clear text. h3 needs TLS, listens on the UDP port of the same number,
	// and is offered to clients of h1 and h2 by Alt-Svc (RFC 7838).
	Protocols []string `yaml:"protocols" enum:"h1 h2 h3"`
	// TrustedHops may set Forwarded and X-Forwarded-For; from anybody else
	// these fields are dropped.
	TrustedHops []netip.Prefix `yaml:"trusted_hops"`
	// Timeouts bound what a client may hold open.
	Timeouts ListenerTimeouts `yaml:"timeouts"`
	// Limits bound what a client may ask for.
	Limits ListenerLimits `yaml:"limits"`
}

// ListenerLimits bound what a client may ask for. What is over one of the first
// three is refused with a status of 4xx.
type ListenerLimits struct {
	// HeaderBytes bounds a request head. Default 32KiB, 1KiB to 1MiB.
	HeaderBytes Size `yaml:"header_bytes" default:"32KiB" range:"1KiB..1MiB"`
	// HeaderFields bounds the field lines of a request head. Default 100, 10 to
	// 10000.
	HeaderFields int `yaml:"header_fields" default:"100" range:"10..10000"`
	// URIBytes bounds a request's path and query; less than header_bytes.
	// Default 8KiB, or half of header_bytes if that is less; 64B to 64KiB.
	URIBytes Size `yaml:"uri_bytes" range:"64B..64KiB"`
	// Streams bounds the requests under way on one connection of h2 or h3.
	// Default 128, 1 to 1000.
	Streams int `yaml:"streams" default:"128" range:"1..1000"`
	// ClientConnections bounds the connections of one client address: an IPv4
	// address or an IPv6 /64. Trusted hops have no such bound. Default 1024.
	ClientConnections int `yaml:"client_connections" default:"1024" range:"1..1000000"`
	// BodyRate is the least pace of a request body of declared length, in bytes
	// per second on average, from five seconds after its begin; time in which
	// the origin does not take it does not count. Default 256B.
	BodyRate Size `yaml:"body_rate" default:"256B" range:"1B..1GiB"`
}

// ListenerTimeouts bound what a client may hold open.
type ListenerTimeouts struct {
	// Handshake bounds the TLS handshake. Default 10s.
	Handshake Duration `yaml:"handshake" default:"10s" range:"1ms..1h"`
	// Header bounds reading a request head. Default 10s.
	Header Duration `yaml:"header" default:"10s" range:"1ms..1h"`
	// Idle bounds the wait for the next request. Default 75s.
	Idle Duration `yaml:"idle" default:"75s" range:"1ms..24h"`
	// BodyIdle bounds the wait for the next piece of a body in either
	// direction. Default 30s.
	BodyIdle Duration `yaml:"body_idle" default:"30s" range:"1ms..24h"`
}

// TLS is what every TLS listener shares.
type TLS struct {
	// Certificates are chosen by server name; the first is the default.
	Certificates []Certificate `yaml:"certificates"`
	// MinVersion is "1.2" (default) or "1.3".
	MinVersion string `yaml:"min_version" default:"1.2" enum:"1.2 1.3"`
	// ClientCAFile asks clients for a certificate of these authorities.
	ClientCAFile string `yaml:"client_ca_file" file:"public"`
	// Tickets is the schedule of shared session ticket keys.
	Tickets Tickets `yaml:"tickets" restart:"change"`
}

// Certificate is a PEM pair on disk.
type Certificate struct {
	// CertFile holds the leaf first, then intermediates.
	CertFile string `yaml:"cert_file" required:"true" file:"public"`
	// KeyFile must not be readable by others.
	KeyFile string `yaml:"key_file" required:"true" file:"secret"`
}

// Tickets is the schedule of session ticket keys.
type Tickets struct {
	// Rotate is how long one key encrypts. Default 1h, at least 4 times
	// propagation.
	Rotate Duration `yaml:"rotate" default:"1h" range:"100ms..168h"`
	// Keep is how many past keys still decrypt, 1 to 16. Default 2.
	Keep int `yaml:"keep" default:"2" range:"1..16"`
	// Propagation is how long a key takes to reach every node. A key is
	// published twice this long before it encrypts. Default 30s.
	Propagation Duration `yaml:"propagation" default:"30s" range:"10ms..1h"`
}

// Route sends matching requests to a pool.
type Route struct {
	// Match selects requests.
	Match Match `yaml:"match"`
	// Pool names the pool.
	Pool string `yaml:"pool" required:"true"`
	// Timeout bounds the wait for the response head, over all tries. Default 30s.
	Timeout Duration `yaml:"timeout" default:"30s" range:"1ms..24h"`
	// Retries says when another backend is tried after one has failed.
	Retries Retries `yaml:"retries"`
	// Hedge sends slow requests to a second backend. Absent: never.
	Hedge *Hedge `yaml:"hedge"`
	// ServerTiming tells clients in Server-Timing how long the origin took.
	// Default false.
	ServerTiming bool `yaml:"server_timing"`
	// Connect serves the method CONNECT: the client gets a tunnel to a backend of
	// the pool, whatever port its request names. Such a route matches CONNECT
	// only, and has no path. Default false: CONNECT is refused.
	Connect bool `yaml:"connect"`
}

// Retries says when another backend is tried. That happens only before any byte
// of a response, and only when it does no harm: the request was not sent, or
// the origin refused it unprocessed, or its method is idempotent; and what of
// its body was sent is still at hand.
type Retries struct {
	// Attempts is how many further backends one request may be sent to, 0 to 5.
	// Default 2.
	Attempts *int `yaml:"attempts" default:"2" range:"0..5"`
	// Budget bounds retries and hedges as a share of the pool's requests, 0% to
	// 100%; a pool may save up ten of them, and begins with as many. A retry after
	// a connect that failed costs none. Default 20%.
	Budget *Percent `yaml:"budget" default:"20%" range:"0%..100%"`
}

// Hedge sends a request with a safe method and no body to a second backend when
// the first keeps silent. The first answer wins, the other is given up.
type Hedge struct {
	// After is how long the first backend is given.
	After Duration `yaml:"after" required:"true" range:"1ms..1m"`
}

// Match selects requests. Empty fields match all.
type Match struct {
	// Host is a host name, an IP address or "*.suffix"; no port.
	Host string `yaml:"host"`
	// Path is a prefix on segment borders; it starts with "/".
	Path string `yaml:"path"`
}

// Pool is a named set of backends from exactly one of backends, inventory and
// consul.
type Pool struct {
	// Name is unique in the file.
	Name string `yaml:"name" required:"true" format:"name"`
	// Balance is round_robin (default) or least_request.
	Balance string `yaml:"balance" default:"round_robin" enum:"round_robin least_request"`
	// Backends are listed here.
	Backends []Backend `yaml:"backends"`
	// Inventory names a backend set in the fleet store.
	Inventory string `yaml:"inventory" format:"name"`
	// Consul takes the backends from Consul's service catalog.
	Consul *ConsulService `yaml:"consul"`
	// Health probes each backend.
	Health PoolHealth `yaml:"health"`
	// Warm is how many idle connections are kept ready per backend, 0 to 64.
	// Default 1.
	Warm *int `yaml:"warm" default:"1" range:"0..64"`
	// Protocol is spoken to the backends: h1 (default), h2 (by ALPN with tls,
	// with prior knowledge in clear text), or auto, which needs tls and takes
	// what each backend agrees to, h2 first.
	Protocol string `yaml:"protocol" default:"h1" enum:"h1 h2 auto"`
	// ConnectTimeout bounds dialling a backend. Default 2s.
	ConnectTimeout Duration `yaml:"connect_timeout" default:"2s" range:"1ms..1m"`
	// FirstByteTimeout bounds one backend's silence before its response head; time
	// spent on waiting for the client does not count. Default 30s.
	FirstByteTimeout Duration `yaml:"first_byte_timeout" default:"30s" range:"1ms..24h"`
	// IdleTimeout bounds the wait for each piece of a response's body. Default
	// 30s.
	IdleTimeout Duration `yaml:"idle_timeout" default:"30s" range:"1ms..24h"`
	// TLS speaks TLS to the backends. Absent: clear text.
	TLS *PoolTLS `yaml:"tls"`
}

// PoolTLS is TLS towards the backends.
type PoolTLS struct {
	// CAFile verifies the backends. Default: the system's authorities.
	CAFile string `yaml:"ca_file" file:"public"`
	// ServerName is verified and sent in SNI. Required.
	ServerName string `yaml:"server_name" required:"true" format:"host"`
}

// Backend is one origin server.
type Backend struct {
	// Address is "ip:port".
	Address netip.AddrPort `yaml:"address" required:"true"`
	// Weight is its share of requests, 1 to 1000. Default 1.
	Weight int `yaml:"weight" default:"1" range:"1..1000"`
	// Zone is the failure domain it stands in; informative.
	Zone string `yaml:"zone" format:"name"`
}

// ConsulService selects instances in Consul's catalog.
type ConsulService struct {
	// Service is the service name.
	Service string `yaml:"service" required:"true" format:"name"`
	// Tag limits the instances to those that carry it.
	Tag string `yaml:"tag"`
}

// PoolHealth is the active check of every backend of a pool.
type PoolHealth struct {
	// Type is http (default when path is set) or tcp (default otherwise).
	Type string `yaml:"type" enum:"http tcp"`
	// Path is requested by the http check, which needs it; any 2xx passes.
	Path string `yaml:"path"`
	// Host is the Host field of the http check. Default: the address.
	Host string `yaml:"host"`
	// Interval between checks of one backend. Default 2s.
	Interval Duration `yaml:"interval" default:"2s" range:"10ms..1h"`
	// Timeout of one check, at most interval. Default 1s, or interval if that
	// is shorter.
	Timeout Duration `yaml:"timeout" default:"1s" range:"1ms..1h"`
	// Rise is how many passes in a row make a backend healthy. Default 2.
	Rise int `yaml:"rise" default:"2" range:"1..100"`
	// Fall is how many failures in a row make it unhealthy. Default 3.
	Fall int `yaml:"fall" default:"3" range:"1..100"`
}

// BGP announces the service prefixes to upstream routers.
type BGP struct {
	// ASN is this node's autonomous system number.
	ASN uint32 `yaml:"asn" required:"true" restart:"change"`
	// RouterID is an IPv4 address unique among the node's peers (RFC 6286).
	RouterID netip.Addr `yaml:"router_id" required:"true" restart:"change"`
	// Prefixes are announced while the node can serve.
	Prefixes []netip.Prefix `yaml:"prefixes" required:"true"`
	// NextHop is the address upstreams forward to, per family.
	NextHop NextHop `yaml:"next_hop"`
	// HoldTime of the sessions, in whole seconds. Default 9s, at least 3s;
	// keepalives go out at a third of it.
	HoldTime Duration `yaml:"hold_time" default:"9s" range:"3s..65535s"`
	// ShutdownText is what neighbors are told when the agent stops (RFC 9003), at
	// most 255 bytes. Default: that the speaker stopped.
	ShutdownText string `yaml:"shutdown_text"`
	// Actions is the table of named changes of a route, for use in announce,
	// deprefer and drain, for all neighbors or for one.
	Actions []Action `yaml:"actions"`
	// Announce shapes the route in normal service.
	Announce RouteShape `yaml:"announce"`
	// Deprefer shapes the route while traffic should go elsewhere. Default:
	// prepend 3, MED 1000 and GRACEFUL_SHUTDOWN (RFC 8326).
	Deprefer *RouteShape `yaml:"deprefer"`
	// Drain shapes the route while an operator takes the node, or a prefix, out
	// of service and it is not withdrawn yet. Default: as deprefer.
	Drain *RouteShape `yaml:"drain"`
	// Neighbors are the upstream routers. At least one.
	Neighbors []Neighbor `yaml:"neighbors" required:"true"`
}

// NextHop is the address upstreams forward to.
type NextHop struct {
	// IPv4 is required when an IPv4 prefix is announced.
	IPv4 netip.Addr `yaml:"ipv4"`
	// IPv6 is required when an IPv6 prefix is announced.
	IPv6 netip.Addr `yaml:"ipv6"`
}

// RouteShape is how attractive an announced route is.
type RouteShape struct {
	// MED is the multi-exit discriminator; lower is preferred. Default 0.
	MED uint32 `yaml:"med"`
	// Prepend repeats the own ASN this many more times, 0 to 16. Default 0.
	Prepend int `yaml:"prepend" range:"0..16"`
	// Communities are "asn:value" pairs (RFC 1997) or well-known names:
	// graceful-shutdown, no-export, no-advertise. Default none.
	Communities []string `yaml:"communities"`
	// LargeCommunities are "asn:data:data" (RFC 8092). Default none.
	LargeCommunities []string `yaml:"large_communities"`
	// ExtendedCommunities are "rt:asn:value" (route target), "ro:asn:value"
	// (route origin) or 0x and sixteen hexadecimal digits (RFC 4360). Default
	// none.
	ExtendedCommunities []string `yaml:"extended_communities"`
	// Actions are names of actions, which change this shape one after the other.
	// Default none.
	Actions []string `yaml:"actions"`
}

// Neighbor is an upstream router.
type Neighbor struct {
	// Address of the router.
	Address netip.Addr `yaml:"address" required:"true"`
	// Port of the router. Default 179.
	Port uint16 `yaml:"port" default:"179" range:"1..65535"`
	// ASN of the router.
	ASN uint32 `yaml:"asn" required:"true"`
	// LocalAddress is the source of the session. Default: the kernel's choice.
	LocalAddress netip.Addr `yaml:"local_address"`
	// PasswordFile holds the TCP MD5 key (RFC 2385), at most 80 bytes.
	PasswordFile string `yaml:"password_file" file:"secret"`
	// TTLSecurity requires a TTL of 255 (RFC 5082).
	TTLSecurity bool `yaml:"ttl_security"`
	// HoldTime of this session, in whole seconds. Default: that of bgp.
	HoldTime Duration `yaml:"hold_time" range:"3s..65535s"`
	// KeepaliveInterval is the pace of keepalives if the neighbor accepts the
	// hold time, in whole seconds, at most a third of it. Default: a third.
	KeepaliveInterval Duration `yaml:"keepalive_interval" range:"1s..21845s"`
	// BFD watches the path to this neighbor, which must be on the same link: when
	// it fails, the session ends at once. Absent: only the hold time tells.
	BFD *BFD `yaml:"bfd"`
	// Actions change the routes of this neighbor only, after those of the shape.
	Actions NeighborActions `yaml:"actions"`
}

// Health says when the node counts as able to serve.
type Health struct {
	// ProbeInterval between requests through each service address, give or take a
	// tenth. Default 500ms.
	ProbeInterval Duration `yaml:"probe_interval" default:"500ms" range:"10ms..1m"`
	// ProbeTimeout of one such request. Default 1s.
	ProbeTimeout Duration `yaml:"probe_timeout" default:"1s" range:"10ms..1m"`
	// VitalsInterval between the worker's reports to the agent. Default 200ms.
	VitalsInterval Duration `yaml:"vitals_interval" default:"200ms" range:"10ms..1m"`
	// VitalsTimeout is the silence after which the worker counts as hung.
	// Default 1s, at least twice vitals_interval.
	VitalsTimeout Duration `yaml:"vitals_timeout" default:"1s" range:"20ms..10m"`
	// Rise is how many passes in a row make a check healthy. Default 3.
	Rise int `yaml:"rise" default:"3" range:"1..100"`
	// Fall is how many failures in a row make a check unhealthy. Default 2.
	Fall int `yaml:"fall" default:"2" range:"1..100"`
	// HoldDown is the least time between unhealthy and healthy again.
	// Default 5s; it doubles with each flap.
	HoldDown Duration `yaml:"hold_down" default:"5s" range:"1ms..1h"`
	// HoldDownMax bounds the doubling. Default 5m.
	HoldDownMax Duration `yaml:"hold_down_max" default:"5m" range:"1ms..24h"`
	// FlapMemory is how long without a flap forgets one doubling. Default 10m.
	FlapMemory Duration `yaml:"flap_memory" default:"10m" range:"1ms..168h"`
}

// Guard bounds how much of the fleet may be out at once.
type Guard struct {
	// MinPops is how many other healthy announcing PoPs must remain. With 0 the
	// last one may withdraw too. Default 1, 0 to 1000.
	MinPops *int `yaml:"min_pops" default:"1" range:"0..1000"`
	// MaxOut is how many PoPs may be withdrawn at once. Default 1.
	MaxOut int `yaml:"max_out" default:"1" range:"1..1000"`
	// Share is the part of the fleet that may turn unhealthy within window;
	// above it the cause counts as shared and nobody withdraws. Default 34%.
	Share Percent `yaml:"share" default:"34%" range:"1%..100%"`
	// Window is the span that share looks at. Default 30s.
	Window Duration `yaml:"window" default:"30s" range:"10ms..1h"`
}

// Drain is the pace at which a node is taken out of service.
type Drain struct {
	// Deprefer is how long the route stays up de-preferred. Default 10s.
	Deprefer Duration `yaml:"deprefer" default:"10s" range:"1ms..1h"`
	// Withdraw is the wait after the withdrawal, before connections are asked
	// to go. Default 5s.
	Withdraw Duration `yaml:"withdraw" default:"5s" range:"1ms..1h"`
	// Close bounds the wait for connections to end. Default 30s.
	Close Duration `yaml:"close" default:"30s" range:"1ms..24h"`
}

// Measure says what is measured about clients. What leaves the node is sealed, and
// names networks only.
type Measure struct {
	// RTT measures the round-trip times of client connections, as the kernel and
	// QUIC have them, and how many requests come, and publishes both by network.
	// Default true.
	RTT *bool `yaml:"rtt" default:"true"`
	// MinClients is how many clients a network is seen to have at least when it is
	// named. Smaller ones are put together with their neighbors, or left out.
	// Default 8, 2 to 48.
	MinClients int `yaml:"min_clients" default:"8" range:"2..48"`
}

// Worker bounds the worker process.
type Worker struct {
	// RespawnGrace is how long a crashed worker may be away before the route
	// is withdrawn. Default 2s.
	RespawnGrace Duration `yaml:"respawn_grace" default:"2s" range:"10ms..5m"`
	// CrashLimit is how many crashes within crash_window withdraw the route at
	// once. Default 3.
	CrashLimit int `yaml:"crash_limit" default:"3" range:"1..1000"`
	// CrashWindow is the span that crash_limit looks at. Default 1m.
	CrashWindow Duration `yaml:"crash_window" default:"1m" range:"10ms..24h"`
	// DrainTimeout bounds how long a worker whose agent is gone, or that is
	// being replaced, serves its last requests. Default 30s.
	DrainTimeout Duration `yaml:"drain_timeout" default:"30s" range:"1ms..24h"`
	// MaxConnections is the ceiling of client connections. Default: a quarter
	// of the descriptor limit.
	MaxConnections int `yaml:"max_connections" range:"1..10000000"`
	// BufferMemory is the ceiling of memory for bytes on their way. When it is
	// spent, new requests wait for a second, then get 503. Default 256MiB.
	BufferMemory Size `yaml:"buffer_memory" default:"256MiB" range:"1MiB..1024GiB"`
}

// Admin is the operator's API. It has no authentication of its own: bind it to
// loopback or to a management network.
type Admin struct {
	// Address is "ip:port". Default 127.0.0.1:8600, for a DNS node
	// 127.0.0.1:8601.
	Address netip.AddrPort `yaml:"address"`
}

// Log is the form and level of log lines.
type Log struct {
	// Level is debug, info (default), warn or error.
	Level string `yaml:"level" default:"info" enum:"debug info warn error" restart:"change"`
	// Format is text (default) or json.
	Format string `yaml:"format" default:"text" enum:"text json" restart:"change"`
	// Requests writes one line per request, or DNS query. Default false.
	Requests bool `yaml:"requests"`
}
