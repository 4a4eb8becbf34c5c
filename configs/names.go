package configs

import (
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// namePattern is what nodes, PoPs, regions, listeners, pools and inventories
// may be called: safe in a store key, a file name and a metric label.
const namePattern = `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`

var (
	nameRegexp  = regexp.MustCompile(namePattern)
	labelRegexp = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)
)

func isName(s string) bool { return nameRegexp.MatchString(s) }

// isDomain reports whether s is a domain name without a trailing dot, within
// the lengths of RFC 1035 section 2.3.4.
func isDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !labelRegexp.MatchString(label) {
			return false
		}
	}
	return true
}

// isOwner reports whether s is a domain name that records may be at: its first
// label may be "*" (RFC 4592).
func isOwner(s string) bool { return isDomain(strings.TrimPrefix(s, "*.")) && len(s) <= 253 }

// isHost reports whether s is a domain name or an IP address, without port.
func isHost(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == "" || isDomain(s)
}

// isConsulAddress reports whether s is host:port, a URL of a server's root or
// unix:///path.
func isConsulAddress(s string) bool {
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		if scheme == "unix" {
			return strings.HasPrefix(rest, "/")
		}
		u, err := url.Parse(s)
		return err == nil && (scheme == "http" || scheme == "https") && isHost(u.Hostname()) && u.User == nil && u.RawQuery == "" && u.Fragment == ""
	}
	return isHostPort(s)
}

// isHostPort reports whether s is "host:port" or "[ipv6]:port".
func isHostPort(s string) bool {
	host, digits, err := net.SplitHostPort(s)
	if err != nil || !isHost(host) || strings.HasPrefix(s, "[") != strings.Contains(host, ":") {
		return false
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	return err == nil && port > 0
}

// canonicalName returns the form of a domain name in which equal names are
// equal strings.
func canonicalName(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }

// isCommunity reports whether s is a community that a service prefix may
// carry: "asn:value" (RFC 1997) or a well-known name. BLACKHOLE (RFC 7999) has
// no name here on purpose: it would ask upstreams to drop the clients.
func isCommunity(s string) bool {
	switch s {
	case "graceful-shutdown", "no-export", "no-advertise":
		return true
	}
	high, low, ok := strings.Cut(s, ":")
	for _, part := range []string{high, low} {
		if _, err := strconv.ParseUint(part, 10, 16); err != nil || !decimalInt.MatchString(part) {
			return false
		}
	}
	return ok
}
