package configs

import (
	"encoding"
	"strings"
	"testing"
	"time"
)

func TestValues(t *testing.T) {
	type value interface {
		encoding.TextMarshaler
		String() string
	}
	for _, c := range []struct{ kind, text, want string }{ // want "": refused
		{"duration", "250ms", "250ms"},
		{"duration", "90m", "1h30m"},
		{"duration", "60s", "1m"},
		{"duration", "1h0m1s", "1h0m1s"},
		{"duration", "24h", "24h"},
		{"duration", "0s", "0s"},
		{"duration", "10", ""},
		{"duration", "-1s", ""},
		{"duration", "1 s", ""},
		{"duration", "1d", ""},
		{"duration", "", ""},
		{"size", "32KiB", "32KiB"},
		{"size", "2048KiB", "2MiB"},
		{"size", "1025B", "1025B"},
		{"size", "0B", "0B"},
		{"size", "1.5MiB", ""},
		{"size", "-1B", ""},
		{"size", "1MB", ""},
		{"size", "9223372036854775807GiB", ""},
		{"size", "64", ""},
		{"percent", "34%", "34%"},
		{"percent", "0.5%", "0.5%"},
		{"percent", "100%", "100%"},
		{"percent", "100.1%", ""},
		{"percent", "-0%", ""},
		{"percent", "1e1%", ""},
		{"percent", "NaN%", ""},
		{"percent", "0.34", ""},
		{"percent", "%", ""},
	} {
		var got value
		var err error
		switch c.kind {
		case "duration":
			var v Duration
			err, got = v.UnmarshalText([]byte(c.text)), &v
		case "size":
			var v Size
			err, got = v.UnmarshalText([]byte(c.text)), &v
		case "percent":
			var v Percent
			err, got = v.UnmarshalText([]byte(c.text)), &v
		}
		if c.want == "" {
			if err == nil {
				t.Errorf("%s %q: got %v, want an error", c.kind, c.text, got)
			}
			continue
		}
		text, marshalErr := got.MarshalText()
		if err != nil || marshalErr != nil || got.String() != c.want || string(text) != c.want {
			t.Errorf("%s %q: got %v, %v; want %s", c.kind, c.text, got, err, c.want)
		}
	}
	if got := Duration(1500 * time.Millisecond).Std(); got != 1500*time.Millisecond {
		t.Errorf("Std = %v", got)
	}
	if got := Percent(34).Fraction(); got != 0.34 {
		t.Errorf("Fraction = %v", got)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"address", "weight", "zone"}
	for _, c := range []struct{ key, want string }{
		{"adress", "address"}, {"adderss", "address"}, {"wieght", "weight"}, {"zones", "zone"}, {"Zone", "zone"},
		{"host", ""}, {"", ""}, {"z", ""},
	} {
		if got := nearest(c.key, words); got != c.want {
			t.Errorf("nearest(%q) = %q, want %q", c.key, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	long := ""
	for len(long) < 63 {
		long += "a"
	}
	for _, c := range []struct {
		check func(string) bool
		good  []string
		bad   []string
	}{
		{isName, []string{"fra-1", "a", "A_b.c", long}, []string{"", "-a", ".", "a/b", "a b", long + "a", "a\n"}},
		{isOwner, []string{"edge.example", "*.a", "*.edge.example"}, []string{"", "*", "*.", "a.*.example", "*a.example", "**.a", "*." + strings.Repeat("a.", 125) + "aa"}},
		{isDomain, []string{"edge.example", "a", "_acme.x", long + ".example"}, []string{"", ".", "a..b", "-a", "a-", long + "a", "a.", "*.a", long + "." + long + "." + long + "." + long}},
		{isHost, []string{"a.example", "192.0.2.1", "2001:db8::1"}, []string{"", "a:80", "[::1]", "fe80::1%eth0", "a b"}},
		{isHostPort, []string{"a:80", "192.0.2.1:443", "[::1]:8500"}, []string{"a", ":80", "a:0", "a:65536", "::1:80", "a:b", "a:80/x", "u@a:80"}},
		{isCommunity, []string{"0:0", "65535:65535", "no-export"}, []string{"", "1", "1:", ":1", "1:2:3", "65536:1", "01:1", "+1:1", "blackhole"}},
		{isConsulAddress, []string{"127.0.0.1:8500", "https://consul.example:8501", "http://[::1]:8500", "unix:///run/consul.sock"},
			[]string{"consul", "ftp://a:1", "unix://run", "https://", "http://u:p@a:1", "http://a:1?x"}},
	} {
		for _, s := range c.good {
			if !c.check(s) {
				t.Errorf("%q is refused", s)
			}
		}
		for _, s := range c.bad {
			if c.check(s) {
				t.Errorf("%q is accepted", s)
			}
		}
	}
}
