package gslb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"anyedge/gslb/steer"
	"anyedge/internal/cidr"
)

// Bounds of a map of clients. More than maxClientErrors problems are not listed.
const (
	maxClients      = 4_000_000
	maxClientLine   = 1024
	maxClientErrors = 20
)

// ParseClients reads a map of client networks: lines of
// "prefix,latitude,longitude" with degrees north and east. "#" starts a comment,
// blank lines and space around fields do not count. Prefixes are unique and have
// no bits set beyond their length. The result is in the order of
// steer.CompareClients.
//
// The error joins the problems found, each as "name:line: problem". At most four
// million networks are read.
func ParseClients(r io.Reader, name string) ([]steer.Client, error) {
	type located struct {
		steer.Client
		line int
	}
	var clients []located
	var errs []error
	fail := func(line int, err error) { errs = append(errs, fmt.Errorf("%s:%d: %w", name, line, err)) }

	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, maxClientLine), maxClientLine)
	line := 0
	for lines.Scan() && len(errs) < maxClientErrors {
		line++
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if len(clients) == maxClients {
			fail(line, fmt.Errorf("more than %d networks", maxClients))
			break
		}
		c, err := parseClient(text)
		if err != nil {
			fail(line, err)
			continue
		}
		clients = append(clients, located{c, line})
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("longer than %d bytes", maxClientLine)
		}
		fail(line+1, err)
	}
	slices.SortStableFunc(clients, func(a, b located) int { return steer.CompareClients(a.Client, b.Client) })
	result := make([]steer.Client, len(clients))
	for i, c := range clients {
		result[i] = c.Client
		if i > 0 && c.Prefix == clients[i-1].Prefix && len(errs) < maxClientErrors {
			fail(c.line, fmt.Errorf("%v is on line %d already", c.Prefix, clients[i-1].line))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return result, nil
}

func parseClient(text string) (c steer.Client, err error) {
	fields := strings.Split(text, ",")
	if len(fields) != 3 {
		return c, fmt.Errorf("%d fields, want prefix,latitude,longitude", len(fields))
	}
	prefix, err := netip.ParsePrefix(strings.TrimSpace(fields[0]))
	if err != nil {
		return c, fmt.Errorf("%q is not a network", strings.TrimSpace(fields[0]))
	}
	c.Prefix = cidr.From(prefix)
	if c.Prefix.Is4In6() {
		return c, fmt.Errorf("%v is an IPv4 network in IPv6 form", c.Prefix)
	}
	if c.Prefix != c.Prefix.Masked() {
		return c, fmt.Errorf("%v has bits set beyond its length; the network is %v", c.Prefix, c.Prefix.Masked())
	}
	if c.Lat, err = degrees(fields[1], 90); err != nil {
		return c, fmt.Errorf("latitude %w", err)
	}
	if c.Lon, err = degrees(fields[2], 180); err != nil {
		return c, fmt.Errorf("longitude %w", err)
	}
	return c, nil
}

func degrees(text string, limit float64) (float64, error) {
	text = strings.TrimSpace(text)
	d, err := strconv.ParseFloat(text, 64)
	if err != nil || !(math.Abs(d) <= limit) {
		return 0, fmt.Errorf("%q is not a number from -%v to %v", text, limit, limit)
	}
	return d, nil
}
