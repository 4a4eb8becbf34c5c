package ops

import (
	"bytes"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	s := New(Config{Endpoints: endpoints, Log: discard})
	const (
		rebound = `host "evil.example" is neither an IP address nor localhost`
		other   = "another site made this request"
		origin  = "cross-origin request detected"
	)
	for _, tt := range []struct {
		name, method, target string
		fields               []string
		status               int
		err                  string // in the message
	}{
		{"IPv4", "GET", "/v1/status", []string{"Host: 10.0.0.1:8600"}, 200, ""},
		{"IPv4 without port", "GET", "/v1/status", []string{"Host: 10.0.0.1"}, 200, ""},
		{"IPv6", "GET", "/v1/status", []string{"Host: [2001:db8::1]:8600"}, 200, ""},
		{"IPv6 without port", "GET", "/v1/status", []string{"Host: [::1]"}, 200, ""},
		{"localhost", "GET", "/v1/status", []string{"Host: LocalHost:8600"}, 200, ""},
		{"rebinding", "GET", "/v1/status", []string{"Host: evil.example"}, 403, rebound},
		{"rebinding to a page", "GET", "/", []string{"Host: evil.example"}, 403, rebound},
		{"localhost in front", "GET", "/v1/status", []string{"Host: localhost.evil.example"}, 403, "neither"},
		{"an address in front", "GET", "/v1/status", []string{"Host: 127.0.0.1.evil.example:8600"}, 403, "neither"},
		{"IPv4 in brackets", "GET", "/v1/status", []string{"Host: [127.0.0.1]"}, 403, "neither"},
		{"a user in front", "GET", "/v1/status", []string{"Host: localhost:1@evil.example"}, 403, "neither"},
		{"no host", "GET", "/v1/status", []string{"Host: "}, 403, "neither"},

		{"curl", "DELETE", "/v1/drain", []string{jsonBody}, 204, ""},
		{"with charset", "DELETE", "/v1/drain", []string{jsonBody + "; charset=utf-8"}, 204, ""},
		{"own page", "DELETE", "/v1/drain", []string{jsonBody, "Sec-Fetch-Site: same-origin"}, 204, ""},
		{"own page, old browser", "DELETE", "/v1/drain", []string{jsonBody, "Origin: http://127.0.0.1:8600"}, 204, ""},
		{"other site", "DELETE", "/v1/drain", []string{jsonBody, "Sec-Fetch-Site: cross-site"}, 403, origin},
		{"other port", "DELETE", "/v1/drain", []string{jsonBody, "Sec-Fetch-Site: same-site"}, 403, origin},
		{"other site, old browser", "DELETE", "/v1/drain", []string{jsonBody, "Origin: http://evil.example"}, 403, origin},
		{"sandbox, old browser", "DELETE", "/v1/drain", []string{jsonBody, "Origin: null"}, 403, origin},
		{"a form", "POST", "/v1/drain", []string{"Content-Type: text/plain"}, 415, "POST needs Content-Type: application/json"},
		{"no type", "DELETE", "/v1/drain", nil, 415, "DELETE needs Content-Type: application/json"},

		{"read by own page", "GET", "/v1/status", []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"}, 200, ""},
		{"typed", "GET", "/v1/status", []string{"Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"}, 200, ""},
		{"a link", "GET", "/v1/status", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 200, ""},
		{"an image", "GET", "/debug/pprof/profile", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 403, other},
		{"a frame", "GET", "/debug/", []string{"Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403, other},

		{"debug from here", "GET", "/debug/", []string{"Remote: [::1]:40000"}, 200, ""},
		{"debug from here, mapped", "GET", "/debug/", []string{"Remote: [::ffff:127.0.0.1]:40000"}, 200, ""},
		{"debug from elsewhere", "GET", "/debug/", []string{"Remote: 10.0.0.9:40000"}, 403, "only for clients on the same host"},
		{"profile from elsewhere", "GET", "/debug/pprof/heap", []string{"Remote: [2001:db8::9]:40000"}, 403, "only for clients on the same host"},
		{"debug by another path", "GET", "//debug/pprof/heap", []string{"Remote: 10.0.0.9:40000"}, 307, ""},
		{"API from elsewhere", "GET", "/v1/status", []string{"Remote: 10.0.0.9:40000"}, 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := ask(s, tt.method, tt.target, "", tt.fields...)
			if resp.StatusCode != tt.status {
				t.Fatalf("%s, want %d", resp.Status, tt.status)
			}
			if tt.err != "" {
				if got := errorOf(t, resp); !strings.Contains(got, tt.err) {
					t.Errorf("error %q, want %q", got, tt.err)
				}
			}
			for name, want := range map[string]string{
				"X-Content-Type-Options":       "nosniff",
				"Referrer-Policy":              "no-referrer",
				"Cross-Origin-Resource-Policy": "same-origin",
				"Cache-Control":                "no-store",
			} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: %q", name, got)
				}
			}
			if got := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, contentPolicy) {
				t.Errorf("Content-Security-Policy: %q", got)
			}
		})
	}
}

// FuzzLiteralHost holds what is let through against another reading of a host.
func FuzzLiteralHost(f *testing.F) {
	f.Fuzz(func(t *testing.T, host string) {
		if !literalHost(host) {
			return
		}
		u, err := url.Parse("http://" + host)
		if err != nil && strings.Contains(host, "%") {
			return // a URL writes a zone in another way
		}
		if err != nil || u.User != nil || u.Path != "" {
			t.Fatalf("%q: %v, %v", host, u, err)
		}
		name := u.Hostname()
		if strings.EqualFold(name, "localhost") {
			return
		}
		name, _, _ = strings.Cut(name, "%")
		if net.ParseIP(name) == nil {
			t.Errorf("%q names %q", host, name)
		}
	})
}

func TestMutationsAreLogged(t *testing.T) {
	var log bytes.Buffer
	s := New(Config{Endpoints: endpoints, Log: slog.New(slog.NewTextHandler(&log, nil))})
	ask(s, "GET", "/v1/status", "")
	ask(s, "POST", "/v1/drain", `{"name":"fra"}`, jsonBody)
	ask(s, "POST", "/v1/drain", `{"name":"broken"}`, jsonBody)
	ask(s, "DELETE", "/v1/drain", "", jsonBody, "Remote: 10.0.0.9:1", "Sec-Fetch-Site: cross-site")
	got := regexp.MustCompile(`(time|duration)=\S+ ?`).ReplaceAllString(log.String(), "")
	want := `level=INFO msg="admin request" method=POST path=/v1/drain remote=127.0.0.1:40000 status=200 
level=ERROR msg="admin request failed" method=POST path=/v1/drain error="io: read/write on closed pipe"
level=INFO msg="admin request" method=POST path=/v1/drain remote=127.0.0.1:40000 status=500 
level=INFO msg="admin request" method=DELETE path=/v1/drain remote=10.0.0.9:1 status=403 
`
	if got != want {
		t.Errorf("log:\n%s\nwant:\n%s", got, want)
	}
}
