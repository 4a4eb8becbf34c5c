package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"anyedge/configs"
)

// The reasons for which a request cannot be matched at all.
var (
	errAuthority     = errors.New("the host is malformed")
	errAmbiguousPath = errors.New("the path is malformed or ambiguous")
)

const (
	maxHost   = 255  // bytes of a host name
	maxPrefix = 1000 // bytes of a route's path
)

// route is one compiled route. It is never mutated.
type route struct {
	pattern      string // host and path, for log lines
	pool         *upstream
	timeout      time.Duration
	retries      int
	budget       int64         // share of retries and hedges, in thousandths
	hedge        time.Duration // 0 is never
	serverTiming bool
	connect      bool
}

// back returns the way to the route's backends.
func (r *route) back() back {
	if r.connect {
		return connector{r.pool.pool}
	}
	return r.pool.backs.by(r.pool.protocol())
}

func newRoute(r configs.Route, pool *upstream) *route {
	made := &route{
		pattern: cmp.Or(r.Match.Host, "*") + r.Match.Path, pool: pool, timeout: r.Timeout.Std(),
		serverTiming: r.ServerTiming, connect: r.Connect,
	}
	if r.Connect {
		made.pattern = "CONNECT " + made.pattern
	}
	if a := r.Retries.Attempts; a != nil {
		made.retries = *a
	}
	if b := r.Retries.Budget; b != nil {
		made.budget = int64(1000 * b.Fraction())
	}
	if r.Hedge != nil {
		made.hedge = r.Hedge.After.Std()
	}
	return made
}

// table finds the route of a request. It is never mutated once compiled, and a
// lookup allocates nothing.
//
// Of the routes that match, the one with the most specific host wins: an exact
// name, then the longest "*.suffix", which stands for one or more labels, then
// any. Among those, the longest path prefix wins.
//
// A path prefix ends on a segment border: "/api" and "/api/" are the same, and
// match "/api" and "/api/v1" but not "/apis". The path is forwarded as it was
// received; for matching only it is read in two ways:
//
//   - strictly (RFC 3986, 6.2.2): percent-encoded unreserved characters are
//     decoded, empty segments are left out;
//   - as loosely as some servers do: everything is decoded, a backslash and a
//     decoded "%2F" are separators, parameters (";x=1") are cut off.
//
// If the two readings choose different routes, or a dot segment shows in the
// loose one, or an encoding is broken, or the path holds a control character,
// the request is refused. So no spelling leads around a route.
type table struct {
	exact  map[string]*paths
	suffix map[string]*paths // by ".suffix"
	any    *paths
}

// paths are the routes of one host pattern by prefix, which has no "/" at its
// end; the prefix that matches everything is "".
type paths struct {
	routes  map[string]*route
	longest int
}

func newTable() *table {
	return &table{exact: make(map[string]*paths), suffix: make(map[string]*paths)}
}

// compile builds the table of CONNECT and that of all other methods. The error
// names every bad route.
func compile(routes []configs.Route, pools map[string]*upstream) (others, connect *table, err error) {
	others, connect = newTable(), newTable()
	var errs []error
	for i, r := range routes {
		t := others
		if r.Connect {
			t = connect
		}
		pool := pools[r.Pool]
		if pool == nil {
			errs = append(errs, fmt.Errorf("routes[%d].pool: no pool %q", i, r.Pool))
		}
		if r.Timeout <= 0 {
			errs = append(errs, fmt.Errorf("routes[%d].timeout: not positive", i))
		}
		group, err := t.group(r.Match.Host)
		if err != nil {
			errs = append(errs, fmt.Errorf("routes[%d].match.host: %w", i, err))
			continue
		}
		prefix, err := cleanPrefix(r.Match.Path)
		if err != nil {
			errs = append(errs, fmt.Errorf("routes[%d].match.path: %w", i, err))
			continue
		}
		if group.routes[prefix] != nil {
			errs = append(errs, fmt.Errorf("routes[%d].match: the same host and path as a route before", i))
		}
		group.routes[prefix] = newRoute(r, pool)
		group.longest = max(group.longest, len(prefix))
	}
	return others, connect, errors.Join(errs...)
}

// group returns the paths of a host pattern.
func (t *table) group(pattern string) (*paths, error) {
	if pattern == "" {
		if t.any == nil {
			t.any = &paths{routes: make(map[string]*route)}
		}
		return t.any, nil
	}
	name, wild := strings.CutPrefix(pattern, "*.")
	var buf [maxHost]byte
	host, ok := readHost(&buf, name)
	if !ok || len(host) == 0 {
		return nil, fmt.Errorf("%q is not a host name or *.suffix", pattern)
	}
	groups, key := t.exact, string(host)
	if wild {
		groups, key = t.suffix, "."+key
	}
	if groups[key] == nil {
		groups[key] = &paths{routes: make(map[string]*route)}
	}
	return groups[key], nil
}

// cleanPrefix returns a route's path as it is compared. Both readings of such a
// path are the path itself.
func cleanPrefix(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	if len(path) > maxPrefix {
		return "", fmt.Errorf("longer than %d bytes", maxPrefix)
	}
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`%\;?#`, c) >= 0 {
			return "", fmt.Errorf("%q holds %q, which a prefix cannot", path, c)
		}
	}
	if path[0] != '/' {
		return "", fmt.Errorf("%q does not start with a slash", path)
	}
	path = strings.TrimSuffix(path, "/")
	if strings.Contains(path, "//") || strings.HasSuffix(path, "/") {
		return "", fmt.Errorf("%q has an empty segment", path)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return "", fmt.Errorf("%q has a dot segment", path)
		}
	}
	return path, nil
}

// find returns the route for an authority and a path with its query, both as
// received, or nil if none matches. The error is errAuthority or
// errAmbiguousPath.
func (t *table) find(authority, path string) (*route, error) {
	var hostBuf [maxHost]byte
	host, ok := readHost(&hostBuf, authority)
	if !ok {
		return nil, errAuthority
	}
	var strict, loose reading
	twofold, ok := readPath(path, &strict, &loose)
	if !ok {
		return nil, errAmbiguousPath
	}
	r := t.match(host, strict.bytes())
	if twofold && t.match(host, loose.bytes()) != r {
		return nil, errAmbiguousPath
	}
	return r, nil
}

// match finds the route of a host and a path that have been read.
func (t *table) match(host, path []byte) *route {
	if r := t.exact[string(host)].find(path); r != nil {
		return r
	}
	if len(t.suffix) > 0 {
		for i := 1; i < len(host); i++ { // from the longest suffix on
			if host[i] != '.' {
				continue
			}
			if r := t.suffix[string(host[i:])].find(path); r != nil {
				return r
			}
		}
	}
	return t.any.find(path)
}

// find returns the route with the longest matching prefix. A nil p has none.
func (p *paths) find(path []byte) *route {
	if p == nil {
		return nil
	}
	for end := min(len(path), p.longest); end > 0; end-- {
		if end == len(path) || path[end] == '/' {
			if r := p.routes[string(path[:end])]; r != nil {
				return r
			}
		}
	}
	return p.routes[""]
}
