// Package gslb is the authoritative DNS server that steers clients to points of
// presence. It serves plain zones from zone files, and over them steered names,
// whose addresses a steer.Table chooses for each query.
//
// A steered name replaces the A and AAAA records that its zone has at that name;
// other types come from the zone. It may be the zone's apex or a wildcard, but
// not an alias, and not lie below a zone cut.
//
// A query's client is what its EDNS Client Subnet option says (RFC 7871), else
// the address it comes from. The scope given back is that of the steering
// decision, or 0 for all that the zone files say. Networks that are not routed
// on the Internet, such as 10.0.0.0/8, are like any others: they have a place if
// the map of clients gives them one.
//
// A zone with keys is signed online (RFC 4033 to 4035), steered answers too:
// signatures are made when they are asked for, and kept. See Signing. A copy or a
// zone file that has signatures in it is served with those, as it is: nothing in
// it can be steered. Dynamic updates are not served.
//
// # Life of a query
//
// The slow path is the one that says what is right: a message is read by
// readQuery, which refuses what is malformed, answered from the current view by
// view.resolve, and packed by the library. The fast path, view.respondFast, has
// the answers to usual questions in packed form, made by the slow path when
// zones or steered names change, and leaves it all else; a differential fuzz
// target holds both to the same octets. These steps are pure; the UDP and TCP
// loops around them do the I/O.
//
// # Concurrency
//
// A view joins the zones and the steering table, and is immutable. A query loads
// the current one once. Update, SetZones and Set check and build the next one
// beside it; they may be called at any time, by any goroutine, before Run too.
package gslb

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"anyedge/gslb/steer"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Config is what a Server is made from. Zero fields have the defaults given.
type Config struct {
	// Listen are the addresses to serve, each over UDP and TCP. An unspecified
	// address stands for all of its own family only. Port 0 takes a free one,
	// which Addresses tells.
	Listen []netip.AddrPort
	// TLS and HTTPS are addresses served by DNS over TLS (RFC 7858) and DNS over
	// HTTPS (RFC 8484, at /dns-query), with the certificates of TLSConfig, which
	// may be nil if there are none.
	TLS, HTTPS []netip.AddrPort
	TLSConfig  *tls.Config
	// Zones are served at first; SetZones replaces them.
	Zones []Zone
	// Sockets is how many UDP sockets each address has, between which the kernel
	// spreads the clients, and threads that answer. Default GOMAXPROCS. The
	// threads wait outside of the runtime's view: with SpareProcessors more than
	// there are sockets, it does not take theirs away meanwhile.
	Sockets int
	// Keys are those that messages may be signed with.
	Keys []Key
	// Resolvers are asked for the addresses of aliases, the first first.
	Resolvers []netip.AddrPort
	// NSID identifies this server to who asks for it (RFC 5001), also as id.server and
	// hostname.bind in class CH (RFC 4892). Default none.
	NSID string
	// CookieSecrets make and take server cookies (RFC 9018): the first makes them.
	// Servers behind one address share them. Default a random one.
	CookieSecrets []CookieSecret
	// RateLimit bounds what goes out over UDP.
	RateLimit RateLimit
	// XDP answers ahead of the sockets. With it a RateLimit has at least 2 responses,
	// because both have a part of them.
	XDP XDP
	// LogQueries writes a line for each query, but for those that XDP answers. It
	// costs more than the answers.
	LogQueries bool
	// MaxConnections bounds the TCP connections at a time. One client address
	// gets an eighth of them. Default 1024.
	MaxConnections int
	// IdleTimeout is how long a TCP connection may take to send its next query,
	// and then to take the answer. Default 10s.
	IdleTimeout time.Duration
}

// Server is a DNS server.
type Server struct {
	cfg Config
	log *slog.Logger
	m   *metrics

	registry prometheus.Registerer

	keys       atomic.Pointer[keyring]
	signatures *signatures
	changed    chan struct{} // of capacity 1: zones or links are not as they were
	viewed     chan struct{} // of capacity 1: there is another view
	limiter    *limiter      // nil if nothing is limited
	asked      sampledQueries
	refused    atomic.Int64 // when the last line about a stranger was written, in Unix nanoseconds

	mu       sync.Mutex // held while a view is built
	identity identity
	links    map[name]*link
	aliased  map[name]*resolved
	zones    map[name]*zone
	table    *steer.Table
	// kernel answers ahead of the sockets, nil before it runs; kernelError is why it
	// does not any more.
	kernel      kernel
	kernelError string

	view       atomic.Pointer[view]
	logQueries atomic.Bool

	ordinary sync.Once // tells that the readers have no real-time priority

	ready     chan struct{}
	addresses []netip.AddrPort // written before ready is closed
}

// New returns a server of the config's zones, which steers nothing until Update
// is called. It opens no sockets. A nil reg leaves the metrics unregistered.
//
// A zone whose file is bad is no error while another one is good: there is no last
// good one to stay with at a start, and the others can do nothing for it. The log
// and the status say why, and questions for it fail until it is set anew.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	cfg.Sockets = cmp.Or(cfg.Sockets, runtime.GOMAXPROCS(0))
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, 1024)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, 10*time.Second)
	if len(cfg.Listen) == 0 {
		return nil, errors.New("gslb: no address to listen on")
	}
	if len(cfg.TLS)+len(cfg.HTTPS) > 0 && cfg.TLSConfig == nil {
		return nil, errors.New("gslb: encrypted transports need a certificate")
	}
	if cfg.XDP.Interface != "" && cfg.RateLimit.Responses == 1 {
		return nil, errors.New("gslb: a rate limit of one response cannot be shared with XDP")
	}
	keys, err := newKeyring(cfg.Keys)
	if err != nil {
		return nil, err
	}
	zones, bad, err := loadFirst(cfg.Zones)
	if err != nil {
		return nil, err
	}
	s := &Server{
		changed: make(chan struct{}, 1), viewed: make(chan struct{}, 1), registry: reg,
		cfg: cfg, log: log, m: newMetrics(reg), ready: make(chan struct{}),
		identity: identity{cookies: cookies{newCookieSecret()}, idle: cfg.IdleTimeout},
		limiter:  newLimiter(cfg.RateLimit, time.Now()),
	}
	if bad != nil {
		log.Error("bad zones not served", "error", bad)
		s.m.updated("zones", nil, bad)
	}
	s.keys.Store(&keys)
	s.logQueries.Store(cfg.LogQueries)
	s.signatures = newSignatures(s.m)
	s.identity.set(cfg.NSID, cfg.CookieSecrets)
	s.recall(cfg.Zones, zones)
	if err := s.signAll(zones); err != nil {
		return nil, err
	}
	s.relink(cfg.Zones)
	return s, s.setView(zones, nil)
}

// Update replaces the steering table. A nil table steers nothing. If a name of it
// does not fit the zones, the error says so for each and nothing changes.
func (s *Server) Update(table *steer.Table) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.setView(s.zones, table)
	s.m.updated("table", &s.m.tableAt, err)
	return err
}

// SetZones replaces all zones, reading their files anew. If one is bad, or a
// steered name does not fit them any more, the error lists every problem with
// file and line, and nothing changes.
func (s *Server) SetZones(from []Zone) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	zones, err := loadZones(from)
	if err == nil {
		err = s.setZones(from, zones, s.table)
	}
	s.m.updated("zones", &s.m.zonesAt, err)
	return err
}

// Set is SetZones and Update in one step, for a change that they could not make
// one after the other, such as a zone that goes together with its steered names.
func (s *Server) Set(from []Zone, table *steer.Table) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	zones, err := loadZones(from)
	if err == nil {
		err = s.setZones(from, zones, table)
	}
	s.m.updated("zones", &s.m.zonesAt, err)
	s.m.updated("table", &s.m.tableAt, err)
	return err
}

// setZones makes a view of zones as loaded. Copies that are here stay.
func (s *Server) setZones(from []Zone, zones map[name]*zone, table *steer.Table) error {
	for n, z := range zones {
		if before := s.zones[n]; before != nil && z.unavailable && s.links[n] != nil && !before.unavailable {
			kept := *before
			kept.transfer, kept.signing = z.transfer, z.signing
			zones[n] = &kept
		}
	}
	s.recall(from, zones)
	if err := s.signAll(zones); err != nil {
		return err
	}
	before := s.zones
	if err := s.setView(zones, table); err != nil {
		return err
	}
	for n, z := range zones {
		if z.stale(before[n]) {
			s.log.Warn("zone changed but its serial did not rise, copies will not follow", "zone", canonical(n.String()), "serial", z.soa().Serial, "before", before[n].soa().Serial)
		}
	}
	s.relink(from)
	return nil
}

// SetIdentity replaces the NSID and the cookie secrets, as of Config. Without
// secrets those in use stay.
func (s *Server) SetIdentity(nsid string, secrets []CookieSecret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identity.set(nsid, secrets)
	v := *s.view.Load()
	v.identity = s.identity
	s.view.Store(&v)
}

// SetLogQueries turns the lines of Config.LogQueries on or off.
func (s *Server) SetLogQueries(on bool) { s.logQueries.Store(on) }

func (s *Server) setView(zones map[name]*zone, table *steer.Table) error {
	v, err := newView(visible(zones), table, s.aliased, s.view.Load())
	if err != nil {
		return err
	}
	for n, z := range zones {
		if z.transfer != nil && !z.unavailable {
			z.remember(s.zones[n])
		}
	}
	defer func() {
		for _, waiting := range []chan struct{}{s.changed, s.viewed} {
			select {
			case waiting <- struct{}{}:
			default: // it is known already
			}
		}
	}()
	v.identity = s.identity
	s.watchExpiry(s.zones, zones)
	s.zones, s.table = zones, table
	s.view.Store(v)
	return nil
}

// Ready returns a channel that is closed when Run listens on every address.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addresses returns the addresses that Run listens on, in the order of the
// config, those of Listen first, then TLS, then HTTPS; nil before Ready.
func (s *Server) Addresses() []netip.AddrPort {
	select {
	case <-s.ready:
		return slices.Clone(s.addresses)
	default:
		return nil
	}
}

// Run listens and serves until ctx is done; then it returns nil, after queries
// in progress were answered. It returns early with an error if an address cannot
// be had or a socket fails. It is called once.
func (s *Server) Run(ctx context.Context) error {
	var sockets []*socket
	defer func() {
		for _, each := range sockets {
			each.close()
		}
	}()
	for _, address := range s.cfg.Listen {
		each, err := listen(address, s.cfg.Sockets)
		if err != nil {
			return listenError(address, err)
		}
		sockets = append(sockets, each)
		s.addresses = append(s.addresses, each.address)
	}
	encrypted, err := s.listenTLS()
	defer func() {
		for _, each := range encrypted {
			each.listener.Close()
		}
	}()
	if err != nil {
		return err
	}
	close(s.ready)
	s.log.Info("dns server listening", "addresses", s.addresses, "zones", len(s.view.Load().zones))

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { s.follow(ctx); return nil })
	if k := s.newKernel(s.addresses[:len(sockets)]); k != nil {
		group.Go(func() error { s.runKernel(ctx, k); return nil })
		group.Go(func() error { s.feedKernel(ctx, k); return nil })
	}
	gate := newGate(s.cfg.MaxConnections)
	for _, each := range sockets {
		for _, conn := range each.udp {
			group.Go(func() error { return s.serveUDP(ctx, conn) })
		}
		group.Go(func() error { return s.serveTCP(ctx, each.tcp, gate, nil) })
	}
	for _, each := range encrypted {
		group.Go(func() error {
			if each.https {
				return s.serveHTTPS(ctx, each.listener, gate, s.cfg.TLSConfig)
			}
			return s.serveTCP(ctx, each.listener, gate, s.cfg.TLSConfig)
		})
	}
	return group.Wait()
}

// listenError says why an address cannot be had, and what helps.
func listenError(address netip.AddrPort, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("gslb: listen on %v: %w: ports below 1024 need CAP_NET_BIND_SERVICE", address, err)
	}
	return fmt.Errorf("gslb: listen on %v: %w", address, err)
}

// encrypted is a listener of DNS over TLS or HTTPS.
type encrypted struct {
	listener *net.TCPListener
	https    bool
}

// listenTLS opens the addresses of encrypted transports. With an error it returns
// those that it could open.
func (s *Server) listenTLS() (all []encrypted, err error) {
	for i, address := range slices.Concat(s.cfg.TLS, s.cfg.HTTPS) {
		listener, err := net.ListenTCP("tcp"+ipFamily(address.Addr()), net.TCPAddrFromAddrPort(address))
		if err != nil {
			return all, listenError(address, err)
		}
		all = append(all, encrypted{listener, i >= len(s.cfg.TLS)})
		s.addresses = append(s.addresses, listener.Addr().(*net.TCPAddr).AddrPort())
	}
	return all, nil
}

// answer returns the response to a message that came over a stream, nil for
// none; send sends what goes before it.
func (s *Server) answer(req request, send func([]byte) error) (answer []byte) {
	defer s.recovered()
	req.now, req.random = uint32(time.Now().Unix()), rand.Uint64()
	out := s.respond(s.view.Load(), req, send)
	s.count(req, &out)
	s.logQuery(req, out.msg, out.steered)
	return out.msg
}

// count counts a response of the slow path.
func (s *Server) count(req request, out *response) {
	s.m.count(req, *out)
	if out.steered != nil && !out.truncated && sampled(req.random) {
		s.asked.note(out.client, out.steered)
	}
}

// Status is what the server serves.
type Status struct {
	Listen []netip.AddrPort `json:"listen"`
	Zones  []ZoneStatus     `json:"zones"`
	Names  []string         `json:"names"`
	Pops   []PopStatus      `json:"pops"`
	XDP    *XDPStatus       `json:"xdp,omitempty"` // nil if it is not asked for
	// TableUpdated and ZonesLoaded are when the current ones were taken.
	TableUpdated time.Time `json:"table_updated"`
	ZonesLoaded  time.Time `json:"zones_loaded"`
}

// ZoneStatus is one zone.
type ZoneStatus struct {
	Name    string `json:"name"`
	Source  string `json:"source"`
	Serial  uint32 `json:"serial"`
	Records int    `json:"records"`
	// Available is false for a copy that has not come yet, or has expired, for a zone
	// whose keys are awaited, and for one whose file was bad at the start.
	Available bool `json:"available"`
	// Error is what is wrong with that file; empty if nothing is.
	Error string `json:"error,omitempty"`
	// Following is how a copy, or an alias of a name that is not steered, is kept up
	// to date; nil for other zones.
	Following *Following `json:"following,omitempty"`
	// SignaturesExpire is when the first signature does of a zone that comes signed.
	SignaturesExpire time.Time `json:"signatures_expire,omitzero"`
}

// PopStatus is a point of presence as answers see it.
type PopStatus struct {
	Name      string       `json:"name"`
	State     string       `json:"state"`
	Drained   bool         `json:"drained"`
	Addresses []netip.Addr `json:"addresses"`
	// Note says what the state is from.
	Note string `json:"note,omitempty"`
}

// Status returns what the server serves at the moment.
func (s *Server) Status() Status {
	v := s.view.Load()
	following := s.followings()
	status := Status{
		Listen:       s.Addresses(),
		Names:        v.table.Names(),
		XDP:          s.kernelStatus(),
		TableUpdated: time.Unix(0, s.m.tableAt.Load()),
		ZonesLoaded:  time.Unix(0, s.m.zonesAt.Load()),
	}
	for _, z := range v.zones {
		each := ZoneStatus{Name: z.name.String(), Source: z.source, Records: z.records, Available: !z.unavailable}
		if z.bad != nil {
			each.Error = z.bad.Error()
		}
		if each.Available {
			each.Serial = z.soa().Serial
		}
		if f := following[z.name]; f != nil && (!f.Alias || v.isAlias(z, z.name)) {
			each.Following = f
		}
		if at := z.expires(); at != 0 {
			each.SignaturesExpire = time.Unix(at, 0)
		}
		status.Zones = append(status.Zones, each)
	}
	slices.SortFunc(status.Zones, func(a, b ZoneStatus) int { return cmp.Compare(a.Name, b.Name) })
	for _, p := range v.table.Pops() {
		status.Pops = append(status.Pops, PopStatus{p.Name, p.State.String(), p.Drained, p.Addresses, p.Note})
	}
	return status
}
