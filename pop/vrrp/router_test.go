package vrrp

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestConfigValidate(t *testing.T) {
	prefixes := func(all ...string) (out []netip.Prefix) {
		for _, s := range all {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	many := func(format string, n int) (out []netip.Prefix) {
		for i := range n {
			out = append(out, netip.MustParsePrefix(fmt.Sprintf(format, i+1)))
		}
		return out
	}
	for _, c := range []struct {
		name string
		edit func(*Config)
		want string // in the error; empty for none
	}{
		{"valid", func(*Config) {}, ""},
		{"IPv6", func(c *Config) { c.Addresses = virtual6 }, ""},
		{"owner", func(c *Config) { c.Priority = PriorityOwner }, ""},
		{"as many as there is room for", func(c *Config) { c.Addresses = many("192.0.2.%d/32", 255) }, ""},
		{"fastest", func(c *Config) { c.Interval = 10 * time.Millisecond }, ""},
		{"slowest", func(c *Config) { c.Interval = 40950 * time.Millisecond }, ""},
		{"no interface", func(c *Config) { c.Interface = "" }, "interface:"},
		{"long interface", func(c *Config) { c.Interface = "abcdefghijklmnop" }, "interface:"},
		{"no vrid", func(c *Config) { c.VRID = 0 }, "vrid:"},
		{"too fast", func(c *Config) { c.Interval = time.Millisecond }, "interval:"},
		{"too slow", func(c *Config) { c.Interval = 41 * time.Second }, "interval:"},
		{"not whole", func(c *Config) { c.Interval = 15 * time.Millisecond }, "interval:"},
		{"negative", func(c *Config) { c.Interval = -time.Second }, "interval:"},
		{"delay without preempt", func(c *Config) { c.PreemptDelay = 1 }, "preempt_delay:"},
		{"negative delay", func(c *Config) { c.Preempt, c.PreemptDelay = true, -1 }, "preempt_delay:"},
		{"owner with delay", func(c *Config) { c.Preempt, c.Priority, c.PreemptDelay = true, PriorityOwner, 1 }, "preempt_delay:"},
		{"no addresses", func(c *Config) { c.Addresses = nil }, "addresses:"},
		{"two families", func(c *Config) { c.Addresses = prefixes("192.0.2.1/24", "fe80::1/64") }, "addresses[1]:"},
		{"global first", func(c *Config) { c.Addresses = prefixes("2001:db8::1/64", "fe80::1/64") }, "addresses[0]:"},
		{"twice", func(c *Config) { c.Addresses = prefixes("192.0.2.1/24", "192.0.2.1/32") }, "addresses[1]:"},
		{"multicast", func(c *Config) { c.Addresses = prefixes("224.0.0.1/24") }, "addresses[0]:"},
		{"loopback", func(c *Config) { c.Addresses = prefixes("127.0.0.2/8") }, "addresses[0]:"},
		{"mapped", func(c *Config) { c.Addresses = prefixes("::ffff:192.0.2.1/128") }, "addresses[0]:"},
		{"zero prefix", func(c *Config) { c.Addresses = []netip.Prefix{{}} }, "addresses[0]:"},
		{"too many", func(c *Config) { c.Addresses = append(many("192.0.2.%d/32", 255), prefixes("192.0.3.1/32")...) }, "addresses:"},
		{"too many of IPv6", func(c *Config) { c.Addresses = many("fe80::%d/64", 78) }, "addresses:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Interface: "eth0", VRID: 51, Addresses: virtual4}
			c.edit(&cfg)
			_, err := New(cfg, slog.New(slog.DiscardHandler), nil)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want one about %s", err, c.want)
			}
		})
	}
}

func TestValidateTellsAll(t *testing.T) {
	err := Config{Interval: 1, PreemptDelay: -1}.Validate()
	for _, want := range []string{"interface:", "vrid:", "interval:", "preempt_delay:", "addresses:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %s in: %v", want, err)
		}
	}
}

func TestNewRouter(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := Config{Interface: "eth0", VRID: 51, Addresses: virtual4}
	r, err := New(cfg, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.String(); got != "vrrp eth0/51/ipv4" {
		t.Errorf("String is %q", got)
	}
	got, err := json.Marshal(r.Status())
	want := `{"interface":"eth0","vrid":51,"family":"ipv4","addresses":["192.0.2.100/24"],"state":"initialize","reason":"not started","priority":100,"holding":false}`
	if err != nil || string(got) != want {
		t.Errorf("status, %v:\ngot  %s\nwant %s", err, got, want)
	}

	// A second one, and the first again after a change, share the registry.
	cfg.Addresses = virtual6
	for range 2 {
		if _, err := New(cfg, slog.New(slog.DiscardHandler), reg); err != nil {
			t.Fatal(err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	all := []string{metricState, metricTransitions, metricPriority, metricHolding, metricAdvertisements, metricDiscards, metricMismatches, metricAnnouncements, metricFailures}
	slices.Sort(all)
	if !slices.Equal(names, all) {
		t.Errorf("metrics are %v, want %v", names, all)
	}
}

func TestWantedPriority(t *testing.T) {
	r, err := New(Config{Interface: "eth0", VRID: 51, Addresses: virtual4, Priority: 150}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.wanted().Serving {
		t.Error("serving before anybody said so")
	}
	for _, c := range []struct{ set, want uint8 }{{0, 150}, {1, 1}, {149, 149}, {150, 150}, {151, 150}, {255, 150}} {
		r.Set(Health{Serving: true, Priority: c.set})
		if got := r.wanted(); !got.Serving || got.Priority != c.want {
			t.Errorf("priority %d: wanted %+v, want %d", c.set, got, c.want)
		}
	}
}

// What the interface has decides who may be sent from, and what is ours.
func TestLinkAddresses(t *testing.T) {
	at := func(p string, valid time.Duration) address {
		return address{prefix: netip.MustParsePrefix(p), usable: true, valid: valid}
	}
	const always = forever * time.Second
	secondary := at("192.0.2.7/24", always)
	secondary.secondary = true
	tentative := at("fe80::7/64", always)
	tentative.usable = false
	for _, c := range []struct {
		name             string
		virtual          []netip.Prefix
		addresses        []address
		primary, foreign string
	}{
		{"nothing", virtual4, nil, "", ""},
		{"own, then leased", virtual4, []address{at("192.0.2.1/24", always), at("192.0.2.100/24", 3*time.Second)}, "192.0.2.1", ""},
		{"leased first", virtual4, []address{at("192.0.2.100/24", 3*time.Second), at("192.0.2.1/24", always)}, "192.0.2.1", ""},
		{"only leased", virtual4, []address{at("192.0.2.100/24", 3*time.Second)}, "", ""},
		{"the owner's", virtual4, []address{at("192.0.2.100/24", always)}, "192.0.2.100", "192.0.2.100"},
		{"of a DHCP server", virtual4, []address{at("192.0.2.100/24", time.Hour)}, "192.0.2.100", "192.0.2.100"},
		{"a short lifetime of another address", virtual4, []address{at("192.0.2.9/24", time.Minute)}, "192.0.2.9", ""},
		{"secondary", virtual4, []address{secondary, at("198.51.100.1/24", always)}, "198.51.100.1", ""},
		{"global is not link-local", virtual6, []address{at("2001:db8::1/64", always)}, "", ""},
		{"link-local", virtual6, []address{at("2001:db8::1/64", always), at("fe80::1/64", always)}, "fe80::1", ""},
		{"virtual link-local", virtual6, []address{at("fe80::100/64", time.Second), at("fe80::1/64", always)}, "fe80::1", ""},
		{"tentative", virtual6, []address{tentative}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := link{addresses: c.addresses}
			show := func(a netip.Addr, ok bool) string {
				if !ok {
					return ""
				}
				return a.String()
			}
			if got := show(l.primary(c.virtual)); got != c.primary {
				t.Errorf("primary %q, want %q", got, c.primary)
			}
			if got := show(l.foreign(c.virtual)); got != c.foreign {
				t.Errorf("foreign %q, want %q", got, c.foreign)
			}
		})
	}
}

func TestLease(t *testing.T) {
	for _, c := range []struct{ interval, want time.Duration }{
		{10 * time.Millisecond, 3 * time.Second},
		{100 * time.Millisecond, 3 * time.Second},
		{time.Second, 5 * time.Second},
		{MaxInterval, 164 * time.Second},
	} {
		got := leaseOf(c.interval)
		if got != c.want || got < activeDown(1, c.interval) {
			t.Errorf("%v: lease %v, want %v", c.interval, got, c.want)
		}
		if !(address{valid: got}).leased() {
			t.Errorf("%v: a lease of %v is not known as one", c.interval, got)
		}
	}
}
