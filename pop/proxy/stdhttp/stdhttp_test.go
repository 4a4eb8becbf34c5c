package stdhttp

import (
	"net/http"
	"net/netip"
	"reflect"
	"testing"

	"anyedge/pop/proxy/exchange"
)

func TestOriginForm(t *testing.T) {
	for target, want := range map[string]string{
		"/a?b":                "/a?b",
		"//a":                 "//a",
		"*":                   "*",
		"http://h":            "/",
		"http://h/":           "/",
		"https://h:1/a//b?c":  "/a//b?c",
		"http://h?x=/y":       "/?x=/y",
		"HTTP://h/a":          "/a",
		"shop.example:443":    "shop.example:443", // CONNECT
		"http://h/a?u=http:/": "/a?u=http:/",
	} {
		if got := originForm(target); got != want {
			t.Errorf("originForm(%q) = %q, want %q", target, got, want)
		}
	}
}

func TestFieldsOf(t *testing.T) {
	h := http.Header{"X-B": {"2", "3"}, "Content-Length": {"9"}, "Host": {"h"}, "X-A": {"1"}, "X-None": nil}
	want := exchange.Fields{{Name: "X-A", Value: "1"}, {Name: "X-B", Value: "2"}, {Name: "X-B", Value: "3"}}
	if got := fieldsOf(h); !reflect.DeepEqual(got, want) {
		t.Errorf("fieldsOf = %v, want %v", got, want)
	}
}

// Whatever the path, what net/http sends is the path: the request target must
// come out byte for byte, or in absolute form around the same bytes.
func FuzzTargetURL(f *testing.F) {
	for _, path := range []string{"/", "/a?b", "//a?b", "//a?", "//a\"b", "*", "/%2f//", "//%", "///", "//a?b?c"} {
		f.Add(path)
	}
	to := netip.MustParseAddrPort("[2001:db8::1]:80")
	f.Fuzz(func(t *testing.T, path string) {
		if path == "" || path[0] != '/' && path != "*" {
			t.Skip()
		}
		u := targetURL(to, &exchange.Request{Path: path, Authority: "h.example"})
		if got := u.RequestURI(); got != path && got != "http://h.example"+path {
			t.Fatalf("%q is sent as %q", path, got)
		}
		if u.Host != to.String() {
			t.Fatalf("%q goes to %q", path, u.Host)
		}
	})
}
