package origin

import (
	"errors"
	"fmt"
	"net/netip"
)

// MaxWeight bounds [Backend.Weight].
const MaxWeight = 1000

// Backend is one origin server. Its identity is its Address: counters, health
// and warm connections belong to the address and survive a change of the rest.
type Backend struct {
	Address netip.AddrPort `json:"address"`
	// Weight is the share of requests, 1 to [MaxWeight]. 0 means 1.
	Weight int `json:"weight"`
	// Zone is the failure domain that the backend stands in; informative.
	Zone string `json:"zone,omitempty"`
}

// Set is every backend of a pool. nil and empty both mean none.
type Set []Backend

// Validate returns why [Pool.Update] would refuse s: an error that names every
// bad backend, or nil.
func (s Set) Validate() error {
	_, err := s.normal()
	return err
}

// normal returns a copy of s with defaults filled in and IPv4-mapped addresses
// unmapped. The error names every bad backend.
func (s Set) normal() (Set, error) {
	out := make(Set, 0, len(s))
	seen := make(map[netip.AddrPort]int, len(s))
	var errs []error
	for i, b := range s {
		b.Address = unmap(b.Address)
		if b.Weight == 0 {
			b.Weight = 1
		}
		first, twice := seen[b.Address]
		switch {
		case !b.Address.IsValid() || b.Address.Port() == 0:
			errs = append(errs, fmt.Errorf("backends[%d].address: %q is not an address with a port", i, b.Address))
		case twice:
			errs = append(errs, fmt.Errorf("backends[%d].address: %s is also backends[%d]", i, b.Address, first))
		}
		if b.Weight < 1 || b.Weight > MaxWeight {
			errs = append(errs, fmt.Errorf("backends[%d].weight: %d is not from 1 to %d", i, b.Weight, MaxWeight))
		}
		if !twice {
			seen[b.Address] = i
		}
		out = append(out, b)
	}
	return out, errors.Join(errs...)
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
