package gslb

import (
	"fmt"
	"maps"
	"time"
)

// A zone that is to be signed must not be given out unsigned while its keys are
// not known: a validator would take that for a forgery, and keep it. Until then
// the view has an empty zone in its place, for which questions fail.

// withhold sets what the view has in place of a zone. Known is false while nobody
// has said yet with which keys the zone is signed, if with any.
func (z *zone) withhold(known bool) {
	z.inPlace = nil
	if z.signing.Await && !known {
		z.inPlace = expired(z.name, z.source, nil)
	}
}

// visible returns the zones as a view is to have them.
func visible(zones map[name]*zone) map[name]*zone {
	var seen map[name]*zone
	for n, z := range zones {
		if z.inPlace == nil {
			continue
		}
		if seen == nil {
			seen = maps.Clone(zones)
		}
		seen[n] = z.inPlace
	}
	if seen == nil {
		return zones
	}
	return seen
}

// checkTTLs returns an error if a record lives longer in caches than rollovers wait.
func (z *zone) checkTTLs() error {
	most := z.signing.MaxTTL
	if most == 0 {
		return nil
	}
	for n, node := range z.nodes {
		for _, set := range node.sets {
			if ttl := time.Duration(set.records[0].Header().Ttl) * time.Second; ttl > most {
				return fmt.Errorf("zone %s: %s:%d: %s has a TTL of %v, and its signing allows %v", z.name, z.source, set.line, n, ttl, most)
			}
		}
	}
	return nil
}
