package gslb

import (
	"errors"
	"fmt"
	"slices"
)

// loadZones loads every zone, or returns all their errors.
func loadZones(from []Zone) (map[name]*zone, error) {
	zones := make(map[name]*zone)
	var errs []error
	for _, f := range from {
		z, err := loadZone(f)
		if z != nil {
			z.transfer, z.signing = f.Transfer, f.Signing
			if f.Alias != "" && err == nil {
				z.alias, err = aliasOf(f)
			}
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case zones[z.name] != nil:
			errs = append(errs, fmt.Errorf("zone %s: listed twice", z.name))
		default:
			zones[z.name] = z
		}
	}
	return zones, errors.Join(errs...)
}

// loadFirst is loadZones for a start. Zones whose files are bad are unavailable, and
// bad is what is wrong with them, unless there is no other zone.
func loadFirst(from []Zone) (zones map[name]*zone, bad, err error) {
	if zones, err = loadZones(from); err == nil {
		return zones, nil, nil
	}
	stand := make(map[name]*zone)
	good := slices.DeleteFunc(slices.Clone(from), func(f Zone) bool {
		_, wrong := loadZones([]Zone{f})
		n, unnamed := parseName(f.Name)
		if wrong == nil || f.File == "" || unnamed != nil {
			return false
		}
		stand[n] = &zone{name: n, source: f.File, transfer: f.Transfer, unavailable: true, bad: wrong}
		return true
	})
	zones, other := loadZones(good)
	for n, z := range stand {
		if zones[n] != nil {
			return nil, nil, err // listed twice
		}
		zones[n] = z
	}
	if other != nil || len(good) == 0 || len(zones) < len(from) {
		return nil, nil, err
	}
	return zones, err, nil
}

// aliasOf returns the target of a zone's alias.
func aliasOf(f Zone) (name, error) {
	if len(f.Primaries) > 0 {
		return "", fmt.Errorf("zone %s: a copy cannot have an alias", f.Name)
	}
	target, err := parseName(f.Alias)
	if err != nil {
		return "", fmt.Errorf("zone %s: alias: %w", f.Name, err)
	}
	return target, nil
}
