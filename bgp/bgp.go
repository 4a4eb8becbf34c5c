// Package bgp announces service prefixes to upstream routers and takes them
// back. Speaker is the announcing side; Router is an upstream for one machine,
// used by the lab and by tests. This is the only package that imports GoBGP.
//
// A Speaker is given the whole set of announcements that should exist and
// works out what to send. It learns no routes: package shield drops every
// UPDATE of a neighbor before GoBGP could parse it, and an import policy that
// accepts local routes only stands behind that. Graceful restart is never
// negotiated, for the data path dies with the host, and hold times are short:
// when the process dies the kernel closes the sessions and the neighbors
// withdraw at once.
//
// # Concurrency
//
// The methods of Speaker and Router may be called from any goroutine. Run may
// be called once; it joins everything it started, GoBGP's own loop included.
// Status and the Router's readers never wait for GoBGP.
//
// GoBGP keeps its best path options in package variables and writes them when
// a server starts. All servers of a process write the same values here, so
// several Speakers and Routers may share a process.
package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"anyedge/bgp/shield"
)

const (
	defaultHoldTime = 9 * time.Second
	minHoldTime     = 3 * time.Second // RFC 4271 section 4.2
	maxHoldTime     = 65535 * time.Second
	maxPassword     = 80 // tcp(7), TCP_MD5SIG_MAXKEYLEN
	maxPrepend      = 16
	defaultPort     = 179
)

// State is the state of a session, in the words of RFC 4271 section 8.2.2.
type State = shield.State

// The states of a session.
const (
	Idle        = shield.Idle
	Connect     = shield.Connect
	Active      = shield.Active
	OpenSent    = shield.OpenSent
	OpenConfirm = shield.OpenConfirm
	Established = shield.Established
)

// Config describes a Speaker.
type Config struct {
	// ASN is the own autonomous system number, 1 to 4294967294.
	ASN uint32
	// RouterID is an IPv4 address that no neighbor shares (RFC 6286).
	RouterID netip.Addr
	// HoldTime is offered to every neighbor; the smaller offer wins.
	// KEEPALIVEs go out at a third of it. Whole seconds, 3s to 65535s.
	// Default 9s.
	HoldTime time.Duration
	// Neighbors are the upstream routers, each address once.
	Neighbors []Neighbor
}

// Neighbor is an upstream router, always of another autonomous system. The
// Speaker connects to it and carries IPv4 and IPv6 unicast over the one
// session, whatever the family of its address.
type Neighbor struct {
	// Address of the router.
	Address netip.Addr
	// Port of the router. Default 179.
	Port uint16
	// ASN of the router. A session with another one is refused.
	ASN uint32
	// LocalAddress is the source of the session. Default: the kernel's choice.
	LocalAddress netip.Addr
	// Password is the TCP MD5 key (RFC 2385), at most 80 bytes. It is a
	// secret and appears in no log, error or Status.
	Password string
	// TTLSecurity sends with a TTL of 255 and requires it (RFC 5082).
	TTLSecurity bool
}

// Announcement is one route as it should be announced to every neighbor.
type Announcement struct {
	// Prefix without host bits.
	Prefix netip.Prefix `json:"prefix"`
	// NextHop is where neighbors forward to, of the prefix's family. It is
	// always sent as given, also when it is not the session's own address.
	NextHop netip.Addr `json:"next_hop"`
	// MED is the multi-exit discriminator; lower is preferred. It is always
	// sent, for routers disagree about what a missing one means.
	MED uint32 `json:"med"`
	// Prepend repeats the own ASN this many more times, 0 to 16.
	Prepend int `json:"prepend"`
	// Communities (RFC 1997); order and repetitions do not matter.
	Communities Communities `json:"communities"`
}

// Path is a route as it is on the wire.
type Path struct {
	Prefix  netip.Prefix `json:"prefix"`
	NextHop netip.Addr   `json:"next_hop"`
	// Neighbor the path was learned from; zero for a path of our own.
	Neighbor netip.Addr `json:"neighbor,omitzero"`
	// ASPath starts with the AS nearest to the reader; sets are flattened.
	ASPath      []uint32    `json:"as_path"`
	MED         uint32      `json:"med"`
	Communities Communities `json:"communities"`
}

// normalize fills in defaults and reports everything that is wrong.
func (c *Config) normalize() error {
	c.RouterID = c.RouterID.Unmap()
	c.HoldTime = cmp.Or(c.HoldTime, defaultHoldTime)
	c.Neighbors = slices.Clone(c.Neighbors)
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !validASN(c.ASN) {
		fail("asn: %d is reserved", c.ASN)
	}
	if !c.RouterID.Is4() || c.RouterID.IsUnspecified() {
		fail("router_id: %v is not a usable IPv4 address", c.RouterID)
	}
	if err := checkHoldTime(c.HoldTime); err != nil {
		fail("hold_time: %w", err)
	}
	seen := make(map[netip.Addr]bool)
	for i := range c.Neighbors {
		n := &c.Neighbors[i]
		n.Address, n.LocalAddress = n.Address.Unmap(), n.LocalAddress.Unmap()
		n.Port = cmp.Or(n.Port, defaultPort)
		at := fmt.Sprintf("neighbors[%d]", i)
		switch {
		case !n.Address.IsValid() || n.Address.IsUnspecified() || n.Address.IsMulticast():
			fail("%s.address: %v is not a usable address", at, n.Address)
		case seen[n.Address]:
			fail("%s.address: %v is listed twice", at, n.Address)
		}
		seen[n.Address] = true
		switch {
		case !validASN(n.ASN):
			fail("%s.asn: %d is reserved", at, n.ASN)
		case n.ASN == c.ASN:
			// To an internal neighbor a prepended path is a loop (RFC 4271
			// section 9.1.2), so de-preferring would withdraw.
			fail("%s.asn: must differ from the own ASN %d", at, c.ASN)
		}
		if n.LocalAddress.IsValid() && n.LocalAddress.Is4() != n.Address.Is4() {
			fail("%s.local_address: %v and %v are of different families", at, n.LocalAddress, n.Address)
		}
		if len(n.Password) > maxPassword {
			fail("%s.password: longer than %d bytes", at, maxPassword)
		}
	}
	return errors.Join(errs...)
}

func validASN(asn uint32) bool {
	// RFC 7607, RFC 6793 and RFC 7300.
	return asn != 0 && asn != 23456 && asn != 65535 && asn != 1<<32-1
}

func checkHoldTime(d time.Duration) error {
	if d < minHoldTime || d > maxHoldTime || d%time.Second != 0 {
		return fmt.Errorf("%v is not whole seconds from %v to %v", d, minHoldTime, maxHoldTime)
	}
	return nil
}

// normalizeSet checks a set of announcements and returns it by prefix, with
// every announcement in its canonical form.
func normalizeSet(set []Announcement) (map[netip.Prefix]Announcement, error) {
	desired := make(map[netip.Prefix]Announcement, len(set))
	var errs []error
	for i, a := range set {
		if err := a.normalize(); err != nil {
			errs = append(errs, fmt.Errorf("announcements[%d]: %w", i, err))
			continue
		}
		if _, twice := desired[a.Prefix]; twice {
			errs = append(errs, fmt.Errorf("announcements[%d]: %v is listed twice", i, a.Prefix))
		}
		desired[a.Prefix] = a
	}
	return desired, errors.Join(errs...)
}

func (a *Announcement) normalize() error {
	a.NextHop = a.NextHop.Unmap()
	a.Communities = slices.Clone(a.Communities)
	slices.Sort(a.Communities)
	a.Communities = slices.Compact(a.Communities)
	switch {
	case !a.Prefix.IsValid() || a.Prefix != a.Prefix.Masked() || a.Prefix.Addr().Is4In6():
		return fmt.Errorf("%v is not a prefix without host bits", a.Prefix)
	case !a.NextHop.IsValid() || a.NextHop.IsUnspecified() || a.NextHop.IsMulticast() || a.NextHop.Zone() != "":
		return fmt.Errorf("%v: next hop %v is not a usable address", a.Prefix, a.NextHop)
	case a.NextHop.Is4() != a.Prefix.Addr().Is4():
		return fmt.Errorf("%v: next hop %v is of the other family", a.Prefix, a.NextHop)
	case a.Prepend < 0 || a.Prepend > maxPrepend:
		return fmt.Errorf("%v: prepend %d is not within 0 to %d", a.Prefix, a.Prepend, maxPrepend)
	}
	return nil
}

// path is a as a neighbor sees it.
func (a *Announcement) path(asn uint32) Path {
	return Path{
		Prefix:      a.Prefix,
		NextHop:     a.NextHop,
		ASPath:      slices.Repeat([]uint32{asn}, a.Prepend+1),
		MED:         a.MED,
		Communities: a.Communities,
	}
}

func (a *Announcement) equal(b *Announcement) bool {
	return a.Prefix == b.Prefix && a.NextHop == b.NextHop && a.MED == b.MED &&
		a.Prepend == b.Prepend && slices.Equal(a.Communities, b.Communities)
}

// byPrefix orders paths by prefix.
func byPrefix(a, b Path) int { return a.Prefix.Compare(b.Prefix) }
