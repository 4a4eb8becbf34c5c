package geo

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxPointErrors is how many problems of a file are listed.
const maxPointErrors = 20

// Points are the places of time zones and countries. They are immutable.
type Points struct {
	zones, countries map[string]point
}

// point is a place in degrees north and east.
type point struct{ lat, lon float64 }

// ReadPoints reads a file of the time zone database, zone.tab or zone1970.tab:
// lines of country codes, coordinates and a time zone, separated by tabs. "#"
// starts a comment line.
//
// A country's point is that of the first line that begins with its code, for that
// is the zone of most people where geography leaves the choice; else of the first
// line that has it among others. zone.tab has a line of each country's own.
// zone1970.tab has one for all countries whose clocks agree: there Iceland is in
// Abidjan.
//
// The error joins the problems found, each as "name:line: problem".
func ReadPoints(r io.Reader, name string) (*Points, error) {
	p := &Points{zones: make(map[string]point), countries: make(map[string]point)}
	own := make(map[string]bool) // countries with a line that begins with them
	var errs []error
	lines := bufio.NewScanner(r)
	line := 0
	for lines.Scan() && len(errs) < maxPointErrors {
		line++
		text := lines.Text()
		if strings.TrimSpace(text) == "" || text[0] == '#' {
			continue
		}
		codes, zone, at, err := parsePoint(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, line, err))
			continue
		}
		p.zones[zone] = at
		for i, code := range codes {
			if _, known := p.countries[code]; !known || i == 0 && !own[code] {
				p.countries[code] = at
			}
			own[code] = own[code] || i == 0
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s:%d: %w", name, line+1, err))
	}
	if len(errs) == 0 && len(p.zones) == 0 {
		errs = append(errs, fmt.Errorf("%s: no points", name))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

func parsePoint(text string) (codes []string, zone string, at point, err error) {
	fields := strings.Split(text, "\t")
	if len(fields) < 3 {
		return nil, "", at, fmt.Errorf("%d fields, want country codes, coordinates and a time zone with tabs between", len(fields))
	}
	codes = strings.Split(fields[0], ",")
	for _, code := range codes {
		if len(code) != 2 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			return nil, "", at, fmt.Errorf("%q is not a country code", code)
		}
	}
	if fields[2] == "" {
		return nil, "", at, errors.New("no time zone")
	}
	// ISO 6709: degrees, minutes and perhaps seconds north, and the same east, each
	// with a sign.
	coordinates := fields[1]
	east := strings.LastIndexAny(coordinates, "+-")
	if east > 0 {
		lat, okLat := sexagesimal(coordinates[:east], 2, 90)
		lon, okLon := sexagesimal(coordinates[east:], 3, 180)
		if okLat && okLon {
			return codes, fields[2], point{lat, lon}, nil
		}
	}
	return nil, "", at, fmt.Errorf("%q are not coordinates such as +4830+01130", coordinates)
}

// sexagesimal reads a sign, degrees of so many digits, minutes, and perhaps
// seconds.
func sexagesimal(text string, digits int, limit float64) (float64, bool) {
	sign, text := text[0], text[1:]
	if len(text) != digits+2 && len(text) != digits+4 {
		return 0, false
	}
	number, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, false
	}
	if len(text) == digits+2 {
		number *= 100
	}
	degrees, minutes, seconds := number/10000, number/100%100, number%100
	value := float64(degrees) + float64(minutes)/60 + float64(seconds)/3600
	if minutes > 59 || seconds > 59 || value > limit {
		return 0, false
	}
	switch sign {
	case '+':
		return value, true
	case '-':
		return -value, true
	}
	return 0, false
}
