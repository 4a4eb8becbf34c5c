// Package vrrp is a VRRP version 3 router (RFC 9568, which obsoletes RFC 5798)
// for IPv4 and IPv6. It keeps service addresses on one node of a small PoP and
// moves them to another when that node cannot serve, where no router speaks
// BGP.
//
// # Parts
//
// The election is a pure state machine: advertisements and the time go in,
// actions and the next deadline come out. Around it, one loop owns the sockets
// of the interface: a raw socket for advertisements and a packet socket for
// gratuitous ARP (RFC 9568 section 8.1.2) and unsolicited Neighbor
// Advertisements (section 8.2.2). Two more goroutines talk to the kernel about
// its network configuration: the watcher keeps up with the interface, the holder
// puts the virtual addresses on it and takes them off. So no advertisement waits
// for the kernel's lock on that configuration, which others may hold for long.
//
// # Addresses are leased
//
// A virtual address is put on the interface with a short valid lifetime that is
// renewed every second. When the process is killed, the kernel takes the address
// off by itself within seconds, instead of answering for it beside the next
// Active Router. The lifetime is also the mark of ownership: an address of the
// configuration that is on the interface with so short a lifetime was put there
// by this package, in this life or an earlier one, and is removed when it should
// not be there, also at the next start. Any other address is left alone. A
// virtual address that somebody else configured keeps the router out of the
// election, unless it is the address owner (priority 255).
//
// # What differs from the RFC
//
//   - The interface's own MAC address is used, not the virtual router's
//     (section 7.3). Neighbors follow by gratuitous ARP and unsolicited Neighbor
//     Advertisements, as they do with keepalived by default.
//   - Accept_Mode is always true: virtual addresses are what the node serves on.
//   - The IPv4 checksum is sent with a pseudo-header unless Config.PlainChecksum
//     is set, and accepted in either form; see there.
//   - No Router Advertisements are sent: the node is no default router.
//   - An Active Router that did not get to run for so long that the others had to
//     take over yields to them rather than claim the addresses back.
//
// # Concurrency
//
// Router's methods may be called from any goroutine. Run may be called once.
package vrrp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	// DefaultPriority is that of a router that is not the address owner
	// (RFC 9568 section 5.2.4).
	DefaultPriority = 100
	// PriorityOwner is that of the router whose own addresses the virtual ones
	// are.
	PriorityOwner = 255
	// DefaultInterval is a tenth of the RFC's default: the next router takes
	// over after less than 0.4 s.
	DefaultInterval = 100 * time.Millisecond
	// MinInterval and MaxInterval bound what the 12 bits for centiseconds hold.
	MinInterval = centisecond
	MaxInterval = 4095 * centisecond

	centisecond = 10 * time.Millisecond
	// maxName is the longest name of an interface, IFNAMSIZ without its zero.
	maxName = 15
	// maxAddresses4 and maxAddresses6 are how many addresses an advertisement
	// has room for: by its counter, and in a packet of 1280 octets.
	maxAddresses4 = 255
	maxAddresses6 = (1280 - 40 - headerLen) / 16
)

// Config describes a virtual router.
type Config struct {
	// Interface is the name of an Ethernet interface. It need not exist yet.
	Interface string
	// VRID tells virtual routers of one LAN and family apart. 1 to 255.
	VRID uint8
	// Addresses are the virtual addresses, all of one family, in the order in
	// which they are advertised. The first IPv6 address must be link-local
	// (RFC 9568 section 5.2.9).
	Addresses []netip.Prefix
	// Priority is 1 to 255; zero means DefaultPriority. PriorityOwner always
	// preempts, at once, and becomes Active without waiting.
	Priority uint8
	// Interval is between advertisements while Active, in whole centiseconds
	// from MinInterval to MaxInterval; zero means DefaultInterval.
	Interval time.Duration
	// Preempt has the router take over from an Active Router of lower priority.
	Preempt bool
	// PreemptDelay is for how long an Active Router of lower priority must have
	// been heard before it is preempted. A silent one is replaced without it.
	PreemptDelay time.Duration
	// PlainChecksum leaves the pseudo-header out of the checksum that is sent
	// over IPv4. That is what RFC 9568 section 5.2.8 says, and what routers of
	// several vendors do. keepalived and FRR read RFC 5798 as asking for a
	// pseudo-header with both families, and drop anything else.
	PlainChecksum bool
	// OnChange is called with the new status after every change of state, on
	// Run's goroutine: it must not block. Nil means nobody is told.
	OnChange func(Status)
}

// Validate returns what is wrong with the config, all of it.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Interface == "" || len(c.Interface) > maxName {
		bad("interface: %q is no name of an interface", c.Interface)
	}
	if c.VRID == 0 {
		bad("vrid: must be 1 to 255")
	}
	if i := c.Interval; i != 0 && (i < MinInterval || i > MaxInterval || i%centisecond != 0) {
		bad("interval: %v is not a multiple of %v from %v to %v", i, centisecond, MinInterval, MaxInterval)
	}
	switch {
	case c.PreemptDelay < 0:
		bad("preempt_delay: must not be negative")
	case c.PreemptDelay > 0 && c.Priority == PriorityOwner:
		bad("preempt_delay: the address owner preempts at once")
	case c.PreemptDelay > 0 && !c.Preempt:
		bad("preempt_delay: nothing to delay without preempt")
	}
	return errors.Join(append(errs, validateAddresses(c.Addresses)...)...)
}

func validateAddresses(all []netip.Prefix) (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(all) == 0 {
		return []error{errors.New("addresses: needs at least one")}
	}
	v6 := all[0].Addr().Is6()
	for i, p := range all {
		a := p.Addr()
		switch {
		case !p.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
			bad("addresses[%d]: %v is no address of a virtual router", i, p)
		case a.Is6() != v6:
			bad("addresses[%d]: %v is of another family than addresses[0]", i, p)
		case i == 0 && v6 && !a.IsLinkLocalUnicast():
			bad("addresses[0]: %v is not link-local, as the first IPv6 address must be", p)
		case slices.ContainsFunc(all[:i], func(q netip.Prefix) bool { return q.Addr() == a }):
			bad("addresses[%d]: %v is there twice", i, a)
		}
	}
	limit := maxAddresses4
	if v6 {
		limit = maxAddresses6
	}
	if len(all) > limit {
		bad("addresses: %d are more than the %d that an advertisement has room for", len(all), limit)
	}
	return errs
}

// withDefaults returns the config with its zero values filled in.
func (c Config) withDefaults() Config {
	c.Priority = cmp.Or(c.Priority, DefaultPriority)
	c.Interval = cmp.Or(c.Interval, DefaultInterval)
	c.Addresses = slices.Clone(c.Addresses)
	return c
}

// family is the family of the addresses of a valid config.
func (c Config) family() Family {
	if c.Addresses[0].Addr().Is6() {
		return IPv6
	}
	return IPv4
}

// Family is the family of a virtual router. Routers of both families with one
// VRID are independent of each other.
type Family string

// The families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// group is where advertisements of the family go (RFC 9568 sections 5.1.1.2 and
// 5.1.2.2).
func (f Family) group() netip.Addr {
	if f == IPv6 {
		return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x12})
	}
	return netip.AddrFrom4([4]byte{224, 0, 0, 18})
}

// Health is what the node knows of itself: the desired part that it plays.
type Health struct {
	// Serving is false while the node must not be Active. An Active Router then
	// gives up by an advertisement of priority 0, and takes no part in the
	// election until Serving is true again.
	Serving bool
	// Priority replaces the configured priority, to make the node less wanted;
	// zero means the configured one, and so does anything above it.
	Priority uint8
	// Reason says why, for humans.
	Reason string
}
