// Package geo reads where client networks are out of geolocation databases in
// the MaxMind DB format, for the steering table.
//
// A network is placed by the first of these that its record has:
//
//   - coordinates: location.latitude and location.longitude;
//   - a time zone: location.time_zone, by the point that Points has for it;
//   - a country: country.iso_code, or country_code where a database has no more
//     than that, by the point of the country.
//
// A network with none of them is left out: its clients are in no network.
//
// Places are rounded to a tenth of a degree, which is 11 km or less, and
// neighboring networks with one place become one. That bounds what a map takes:
// if there still are too many networks, the grid gets coarser, to no more than
// ten degrees.
//
// The package does no I/O of its own.
package geo

import (
	"fmt"
	"math"

	"anyedge/gslb/steer"
	"anyedge/internal/cidr"

	"github.com/oschwald/maxminddb-golang/v2"
)

// maxNetworks bounds a map.
const maxNetworks = 4_000_000

// record is what is read of the data of a network.
type record struct {
	Location struct {
		Latitude  *float64 `maxminddb:"latitude"`
		Longitude *float64 `maxminddb:"longitude"`
		TimeZone  string   `maxminddb:"time_zone"`
	} `maxminddb:"location"`
	Country struct {
		ISOCode string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	CountryCode string `maxminddb:"country_code"`
}

// Read returns the networks of a database that have a place, in the order of
// steer.CompareClients; none contains another. IPv4 networks are given once,
// wherever else the database shows them. Nil points have no points.
//
// Errors begin with the name. It is an error if no network has a place.
func Read(db []byte, name string, points *Points) ([]steer.Client, error) {
	clients, err := read(db, points, maxNetworks)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return clients, nil
}

func read(db []byte, points *Points, limit int) ([]steer.Client, error) {
	reader, err := maxminddb.OpenBytes(db)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	if err := checkTree(db, reader.Metadata); err != nil {
		return nil, err
	}
	type located struct {
		place point
		known bool
	}
	records := make(map[uintptr]located) // networks share records
	m := newMerger(limit)
	networks := uint(0)
	for found := range reader.Networks(maxminddb.IncludeNetworksWithoutData()) {
		if err := found.Err(); err != nil {
			return nil, err
		}
		// A binary tree has a leaf more than it has nodes. With more, the one of IPv4
		// addresses is part of itself.
		if networks++; networks > reader.Metadata.NodeCount+1 {
			return nil, errTree
		}
		if !found.Found() {
			continue
		}
		at, done := records[found.Offset()]
		if !done {
			var r record
			err := found.Decode(&r)
			if err == nil {
				at.place, at.known, err = points.locate(&r)
			}
			if err != nil {
				return nil, fmt.Errorf("%v: %w", found.Prefix(), err)
			}
			records[found.Offset()] = at
		}
		if !at.known {
			continue
		}
		if err := m.add(steer.Client{Prefix: cidr.From(found.Prefix()), Lat: at.place.lat, Lon: at.place.lon}); err != nil {
			return nil, err
		}
	}
	if len(m.clients) == 0 {
		return nil, fmt.Errorf("no network of the %s database has coordinates, or a time zone or country with a point", reader.Metadata.DatabaseType)
	}
	return m.clients, nil
}

// locate returns the place of a record, and false if it has none.
func (p *Points) locate(r *record) (at point, known bool, err error) {
	if lat, lon := r.Location.Latitude, r.Location.Longitude; lat != nil && lon != nil {
		if !(math.Abs(*lat) <= 90) || !(math.Abs(*lon) <= 180) {
			return at, false, fmt.Errorf("%v,%v is not a latitude and a longitude", *lat, *lon)
		}
		return point{*lat, *lon}, true, nil
	}
	if p == nil {
		return at, false, nil
	}
	if at, known = p.zones[r.Location.TimeZone]; known {
		return at, true, nil
	}
	code := r.Country.ISOCode
	if code == "" {
		code = r.CountryCode
	}
	at, known = p.countries[code]
	return at, known, nil
}

// Override merges two maps in the order of steer.CompareClients. Of a network in
// both, the entry of over counts. Either may be returned.
func Override(over, base []steer.Client) []steer.Client {
	if len(over) == 0 {
		return base
	}
	if len(base) == 0 {
		return over
	}
	merged := make([]steer.Client, 0, len(over)+len(base))
	for len(over) > 0 && len(base) > 0 {
		order := steer.CompareClients(over[0], base[0])
		if order <= 0 {
			merged = append(merged, over[0])
			over = over[1:]
		} else {
			merged = append(merged, base[0])
		}
		if order >= 0 {
			base = base[1:]
		}
	}
	return append(append(merged, over...), base...)
}
