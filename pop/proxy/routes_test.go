package proxy

import (
	"errors"
	"math/rand/v2"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"anyedge/configs"
)

// tableOf compiles routes written as "host/path" and names each by that.
func tableOf(t testing.TB, patterns ...string) *table {
	t.Helper()
	var routes []configs.Route
	for _, p := range patterns {
		host, path, found := strings.Cut(p, "/")
		if found {
			path = "/" + path
		}
		routes = append(routes, configs.Route{Match: configs.Match{Host: host, Path: path}, Pool: "pool", Timeout: 1})
	}
	table, _, err := compile(routes, map[string]*upstream{"pool": {}})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// name returns what tableOf made r of.
func name(r *route) string {
	if r.pattern == "*" || strings.HasPrefix(r.pattern, "*/") {
		return r.pattern[1:]
	}
	return r.pattern
}

func TestRoutes(t *testing.T) {
	table := tableOf(t, "/static", "a.example", "a.example/api/", "a.example/api/v1/users", "*.example/api",
		"*.b.example", "*.c.b.example/x", "[2001:db8::1]/api", "host:8080/port", "*.example/secret/admin")
	const none, ambiguous, authority = "-", "ambiguous", "authority"
	tests := []struct{ host, path, want string }{
		{"a.example", "/", "a.example"},
		{"A.Example.:8443", "/x", "a.example"},
		{"a.example", "/api", "a.example/api/"},
		{"a.example", "/api/", "a.example/api/"},
		{"a.example", "/api?x=/../", "a.example/api/"},
		{"a.example", "/apis", "a.example"},
		{"a.example", "/api/v1/users/7", "a.example/api/v1/users"},
		{"a.example", "/api/v1/usersx", "a.example/api/"},
		{"a.example", "/static/x", "a.example"},
		{"b.a.example", "/api/x", "*.example/api"},
		{"b.a.example", "/static/x", "/static"},
		{"example", "/api", none},
		{"x.b.example", "/x", "*.b.example"},
		{"x.c.b.example", "/x", "*.c.b.example/x"},
		{"x.c.b.example", "/y", "*.b.example"},
		{"[2001:DB8::1]:443", "/api", "[2001:db8::1]/api"},
		{"host", "/port", "host:8080/port"},
		{"", "/static", "/static"},
		{"other", "/", none},
		{"other", "*", none},
		{"a.example", "*", "a.example"},

		// One spelling or another.
		{"a.example", "//api//v1/users", "a.example/api/v1/users"},
		{"a.example", "/%61pi/v1/user%73", "a.example/api/v1/users"},
		{"a.example", "/.well-known/x", "a.example"},
		{"a.example", "/api/...", "a.example/api/"},
		{"a.example", "/api/v1/projects/a%2Fb", "a.example/api/"},
		{"a.example", "/x;y=1/z", "a.example"},
		{"a.example", "/%E4%BD%A0", "a.example"},

		// Ways around a route.
		{"a.example", "/x/../api", ambiguous},
		{"a.example", "/x/./api", ambiguous},
		{"a.example", "/x/..", ambiguous},
		{"a.example", "/x/.", ambiguous},
		{"a.example", "/x/%2e%2e/api", ambiguous},
		{"a.example", "/x/.%2E", ambiguous},
		{"a.example", "/x/..%2fapi", ambiguous},
		{"a.example", `/x\..\api`, ambiguous},
		{"a.example", "/x/..;a=b/api", ambiguous},
		{"a.example", "/x/..%3bfoo/api", ambiguous},
		{"a.example", "/%2fapi", ambiguous},
		{"a.example", "/api%2fv1%2fusers", ambiguous},
		{"a.example", `/\api`, ambiguous},
		{"a.example", "/api;x=1/y", ambiguous},
		{"x.example", "/secret/x%2f..%2fadmin", ambiguous},
		{"a.example", "/x%00", ambiguous},
		{"a.example", "/x%0d", ambiguous},
		{"a.example", "/x%", ambiguous},
		{"a.example", "/x%4", ambiguous},
		{"a.example", "/x%zz", ambiguous},
		{"a.example", "/x#y", ambiguous},
		{"a.example", "", ambiguous},
		{"a.example", "x", ambiguous},

		{"a b", "/", authority},
		{"user@a.example", "/", authority},
		{"a.example/x", "/", authority},
		{"a%2eexample", "/", authority},
		{"[::1", "/", authority},
		{"[::1]x", "/", authority},
		{":80", "/", authority},
		{"a:b", "/", authority},
		{"a:123456", "/", authority},
		{strings.Repeat("a", 300), "/", authority},
		{"a,b", "/", authority},
	}
	for _, tt := range tests {
		r, err := table.find(tt.host, tt.path)
		got := none
		switch {
		case errors.Is(err, errAmbiguousPath):
			got = ambiguous
		case errors.Is(err, errAuthority):
			got = authority
		case r != nil:
			got = name(r)
		}
		if got != tt.want {
			t.Errorf("%q %q: %q, want %q", tt.host, tt.path, got, tt.want)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	long := "/" + strings.Repeat("a", maxPrefix)
	for _, tt := range []struct{ host, path, pool, want string }{
		{"", "/", "nowhere", `routes[0].pool: no pool "nowhere"`},
		{"a b", "/", "pool", "routes[0].match.host"},
		{"*.", "/", "pool", "routes[0].match.host"},
		{"a.*.b", "/", "pool", "routes[0].match.host"},
		{"", "x", "pool", "does not start with a slash"},
		{"", "/a//b", "pool", "empty segment"},
		{"", "//", "pool", "empty segment"},
		{"", "/a/../b", "pool", "dot segment"},
		{"", "/%61", "pool", "cannot"},
		{"", "/a?b", "pool", "cannot"},
		{"", long, "pool", "longer than"},
	} {
		_, _, err := compile([]configs.Route{{Match: configs.Match{Host: tt.host, Path: tt.path}, Pool: tt.pool, Timeout: 1}},
			map[string]*upstream{"pool": {}})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: error %v, want %q", tt, err, tt.want)
		}
	}
	twice := []configs.Route{{Match: configs.Match{Path: "/a"}, Pool: "pool", Timeout: 1}, {Match: configs.Match{Path: "/a/"}, Pool: "pool", Timeout: 1}}
	if _, _, err := compile(twice, map[string]*upstream{"pool": {}}); err == nil {
		t.Error("two routes with the same match were taken")
	}
}

// slowMatch is the oracle of a table: among all patterns that match, the best.
func slowMatch(patterns []string, host, path string) string {
	best, rank := "", -1
	for _, p := range patterns {
		wantHost, wantPath, found := strings.Cut(p, "/")
		if found {
			wantPath = "/" + wantPath
		}
		wantPath = strings.TrimSuffix(wantPath, "/")
		score := len(wantPath)
		suffix, wild := strings.CutPrefix(wantHost, "*")
		switch {
		case wantHost == "":
		case wild && strings.HasSuffix(host, suffix) && len(host) > len(suffix):
			score += 1_000_000 + 10_000*len(suffix)
		case wantHost == host:
			score += 1_000_000_000
		default:
			continue
		}
		if path != wantPath && !strings.HasPrefix(path, wantPath+"/") && wantPath != "" {
			continue
		}
		if score > rank {
			best, rank = p, score
		}
	}
	return best
}

var (
	slashes          = regexp.MustCompile(`/+`)
	dots             = regexp.MustCompile(`(^|/)\.\.?(/|$)`)
	parameters       = regexp.MustCompile(`;[^/]*`)
	unreservedEscape = regexp.MustCompile(`%(2[dDeE]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])`)
)

// slowFind is the oracle of find, with regular expressions in place of a scan.
func slowFind(patterns []string, host, path string) (string, bool) {
	path, _, _ = strings.Cut(path, "?")
	loose, err := url.PathUnescape(path)
	if err != nil || !strings.HasPrefix(path, "/") || strings.Contains(path, "#") || strings.ContainsFunc(loose, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", false
	}
	loose = parameters.ReplaceAllString(strings.ReplaceAll(loose, `\`, "/"), "")
	if dots.MatchString(loose) {
		return "", false
	}
	strict := unreservedEscape.ReplaceAllStringFunc(path, func(s string) string {
		s, _ = url.PathUnescape(s)
		return s
	})
	a := slowMatch(patterns, host, slashes.ReplaceAllString(strict, "/"))
	b := slowMatch(patterns, host, slashes.ReplaceAllString(loose, "/"))
	return a, a == b
}

var oraclePatterns = []string{"", "/a", "/a/b", "h/a", "h/a/b/c", "*.h/a", "*.g.h", "*.g.h/a/b", "x.g.h/b", "/~/-"}

func checkOracle(t *testing.T, table *table, host, path string) {
	t.Helper()
	if path == "*" {
		return // no path; TestRoutes has it
	}
	want, ok := slowFind(oraclePatterns, host, path)
	r, err := table.find(host, path)
	if (err == nil) != ok || ok && name(r) != want {
		t.Fatalf("find(%q, %q) = %v, %v; the oracle says %q, %v", host, path, r, err, want, ok)
	}
}

func TestFindOracle(t *testing.T) {
	table := tableOf(t, oraclePatterns...)
	hosts := []string{"h", "g.h", "x.g.h", "y.x.g.h", "other", "xh"}
	pieces := []string{"/", "/", "a", "b", "c", ".", "%2f", "%2F", "%61", "%2e", ";", "\\", "%5c", "%3b", "~", "%7e", "-", "%2d", "?", "%", "%41", "%00"}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		var b strings.Builder
		b.WriteByte('/')
		for range rng.IntN(8) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		checkOracle(t, table, hosts[rng.IntN(len(hosts))], b.String())
	}
}

func FuzzFind(f *testing.F) {
	f.Add("/a/b/c")
	f.Add("/a%2fb;x/..%3b/")
	f.Add(`//a\b/%2e./?x`)
	table := tableOf(f, oraclePatterns...)
	f.Fuzz(func(t *testing.T, path string) { checkOracle(t, table, "x.g.h", path) })
}

func FuzzReadHost(f *testing.F) {
	f.Add("a.example:80")
	f.Add("[::1]:443")
	f.Fuzz(func(t *testing.T, authority string) {
		var buf, again [maxHost]byte
		host, ok := readHost(&buf, authority)
		if !ok {
			return
		}
		if strings.ContainsAny(string(host), " /\\@%,;\"'<>?#\t\r\n") {
			t.Fatalf("readHost(%q) = %q", authority, host)
		}
		if host2, ok := readHost(&again, string(host)); len(host) > 0 && host[len(host)-1] != '.' && (!ok || string(host2) != string(host)) {
			t.Fatalf("readHost is not idempotent: %q, then %q, %v", host, host2, ok)
		}
	})
}

func TestFindAllocatesNothing(t *testing.T) {
	table := tableOf(t, oraclePatterns...)
	for _, path := range []string{"/a/b/c?q=1", "/%61//b%2fc;x=1/" + strings.Repeat("x", 5000)} {
		if n := testing.AllocsPerRun(100, func() { table.find("X.G.h.:443", path) }); n != 0 {
			t.Errorf("find(%.20q…) allocates %v times", path, n)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	table := tableOf(b, oraclePatterns...)
	for b.Loop() {
		table.find("y.x.g.h", "/a/b/c?q=1")
	}
}
