package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"anyedge/bgp/shield"
)

const (
	defaultHoldTime = 9 * time.Second
	minHoldTime     = 3 * time.Second // RFC 4271 section 4.2
	maxHoldTime     = 65535 * time.Second
	maxPassword     = 80 // tcp(7), TCP_MD5SIG_MAXKEYLEN
	defaultPort     = 179
	// maxNeighbors is far above what an edge has upstreams.
	maxNeighbors = 256
	// defaultFarewell is what neighbors are told when the Speaker stops.
	defaultFarewell = "anyedge: speaker stopped"
)

// Check reports everything that is wrong with c, as NewSpeaker and SetNeighbors
// would.
func (c Config) Check() error { return c.normalize() }

// normalize fills in defaults and reports everything that is wrong.
func (c *Config) normalize() error {
	c.RouterID = c.RouterID.Unmap()
	c.HoldTime = cmp.Or(c.HoldTime, defaultHoldTime)
	c.Farewell = cmp.Or(c.Farewell, defaultFarewell)
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
	if err := checkText(c.Farewell); err != nil {
		fail("farewell: %w", err)
	}
	var err error
	if c.Neighbors, err = c.normalizeNeighbors(c.Neighbors); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// normalizeNeighbors checks a set of neighbors and returns it in canonical form.
func (c *Config) normalizeNeighbors(set []Neighbor) ([]Neighbor, error) {
	set = slices.Clone(set)
	var errs []error
	if len(set) > maxNeighbors {
		errs = append(errs, fmt.Errorf("neighbors: %d are more than %d", len(set), maxNeighbors))
	}
	seen := make(map[netip.Addr]bool)
	for i := range set {
		n := &set[i]
		err := n.normalize(c)
		if seen[n.Address] {
			err = errors.Join(err, fmt.Errorf("address: %v is listed twice", n.Address))
		}
		seen[n.Address] = true
		if err != nil {
			errs = append(errs, at(fmt.Sprintf("neighbors[%d].", i), err))
		}
	}
	return set, errors.Join(errs...)
}

// at puts a location in front of each of the errors that were joined.
func at(location string, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s%w", location, err)
	}
	var errs []error
	for _, err := range joined.Unwrap() {
		errs = append(errs, at(location, err))
	}
	return errors.Join(errs...)
}

func (n *Neighbor) normalize(c *Config) error {
	n.Address, n.LocalAddress = n.Address.Unmap(), n.LocalAddress.Unmap()
	n.Port = cmp.Or(n.Port, defaultPort)
	n.HoldTime = cmp.Or(n.HoldTime, c.HoldTime)
	third := (n.HoldTime / 3).Truncate(time.Second)
	n.KeepaliveInterval = cmp.Or(n.KeepaliveInterval, third)
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if a := n.Address; !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
		fail("address: %v is not a usable address", a)
	} else if a.Is6() && a.IsLinkLocalUnicast() != (a.Zone() != "") {
		fail("address: %v: a link-local address needs a zone, and no other has one", a)
	}
	switch {
	case !validASN(n.ASN):
		fail("asn: %d is reserved", n.ASN)
	case n.ASN == c.ASN:
		// To an internal neighbor a prepended path is a loop (RFC 4271 section
		// 9.1.2), so de-preferring would withdraw.
		fail("asn: must differ from the own ASN %d", c.ASN)
	}
	if n.LocalAddress.IsValid() && n.LocalAddress.Is4() != n.Address.Is4() {
		fail("local_address: %v and %v are of different families", n.LocalAddress, n.Address)
	}
	if len(n.Password) > maxPassword {
		fail("password: longer than %d bytes", maxPassword)
	}
	if err := checkHoldTime(n.HoldTime); err != nil {
		fail("hold_time: %w", err)
	} else if k := n.KeepaliveInterval; k < time.Second || k > third || k%time.Second != 0 {
		fail("keepalive_interval: %v is not whole seconds from 1s to %v, a third of the hold time", k, third)
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

// checkText checks a shutdown communication.
func checkText(s string) error {
	if len(s) > shield.MaxText || !utf8.ValidString(s) {
		return fmt.Errorf("%q is not UTF-8 of at most %d bytes", s, shield.MaxText)
	}
	return nil
}
