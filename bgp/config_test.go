package bgp

import (
	"encoding/json"
	"log/slog"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestConfigErrors(t *testing.T) {
	addr := netip.MustParseAddr
	valid := func() Config {
		return Config{ASN: 64512, RouterID: addr("10.0.0.1"), Neighbors: []Neighbor{{Address: addr("10.0.0.254"), ASN: 64500}}}
	}
	tests := []struct {
		change func(*Config)
		want   []string // parts of the error; none: valid
	}{
		{func(c *Config) {}, nil},
		{func(c *Config) { c.HoldTime = 3 * time.Second }, nil},
		{func(c *Config) { c.RouterID = addr("::ffff:10.0.0.1") }, nil},
		{func(c *Config) { c.ASN = math.MaxUint32 }, []string{"asn: 4294967295 is reserved"}},
		{func(c *Config) { c.RouterID = addr("2001:db8::1") }, []string{"router_id: 2001:db8::1"}},
		{func(c *Config) { c.HoldTime = 2 * time.Second }, []string{"hold_time: 2s"}},
		{func(c *Config) { c.HoldTime = 3500 * time.Millisecond }, []string{"hold_time: 3.5s"}},
		{func(c *Config) { c.Farewell = strings.Repeat("x", 256) }, []string{"farewell"}},
		{func(c *Config) { c.Farewell = "\xff" }, []string{"farewell"}},
		{func(c *Config) {
			c.Neighbors[0].HoldTime, c.Neighbors[0].KeepaliveInterval = 30*time.Second, 5*time.Second
		}, nil},
		{func(c *Config) { c.Neighbors[0].HoldTime = time.Second }, []string{"neighbors[0].hold_time: 1s"}},
		{func(c *Config) { c.Neighbors[0].KeepaliveInterval = 4 * time.Second }, []string{"neighbors[0].keepalive_interval: 4s"}},
		{func(c *Config) { c.Neighbors[0].KeepaliveInterval = 1500 * time.Millisecond }, []string{"neighbors[0].keepalive_interval: 1.5s"}},
		{func(c *Config) { c.Neighbors[0].Address = addr("fe80::1") }, []string{"neighbors[0].address: fe80::1"}},
		{func(c *Config) { c.Neighbors[0].Address = addr("fe80::1%eth0") }, nil},
		{func(c *Config) { c.Neighbors = make([]Neighbor, maxNeighbors+1) }, []string{"257 are more than 256"}},
		{func(c *Config) { c.Neighbors[0].ASN = 64512 }, []string{"neighbors[0].asn: must differ"}},
		{func(c *Config) { c.Neighbors[0].ASN = 0 }, []string{"neighbors[0].asn: 0 is reserved"}},
		{func(c *Config) { c.Neighbors[0].Password = strings.Repeat("x", 81) }, []string{"neighbors[0].password: longer than 80 bytes"}},
		{func(c *Config) { c.Neighbors[0].LocalAddress = addr("2001:db8::1") }, []string{"neighbors[0].local_address"}},
		{func(c *Config) {
			c.ASN, c.HoldTime = 0, -time.Second
			c.Neighbors = append(c.Neighbors, c.Neighbors[0], Neighbor{ASN: 64500})
		}, []string{"asn: 0", "hold_time: -1s", "neighbors[1].address: 10.0.0.254 is listed twice", "neighbors[2].address"}},
	}
	for i, test := range tests {
		cfg := valid()
		test.change(&cfg)
		_, err := NewSpeaker(cfg, slog.New(slog.DiscardHandler), nil)
		if (err == nil) != (len(test.want) == 0) {
			t.Errorf("%d: error %v, want %q", i, err, test.want)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%d: error %q does not contain %q", i, err, want)
			}
		}
	}
}

func TestRouterConfigErrors(t *testing.T) {
	_, err := NewRouter(RouterConfig{Listen: netip.MustParseAddrPort("127.0.0.1:0"), HoldTime: time.Second,
		Peers: []RouterPeer{{}}}, slog.New(slog.DiscardHandler))
	for _, want := range []string{"asn", "router_id", "listen", "hold_time", "peers[0]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not mention %s", err, want)
		}
	}
}

func TestAnnouncementErrors(t *testing.T) {
	tests := []struct {
		change func(*Announcement)
		want   string
	}{
		{func(a *Announcement) {}, ""},
		{func(a *Announcement) { a.Prepend = 16 }, ""},
		{func(a *Announcement) { a.Prepend = 17 }, "prepend 17"},
		{func(a *Announcement) { a.Prepend = -1 }, "prepend -1"},
		{func(a *Announcement) { a.Prefix = netip.MustParsePrefix("192.0.2.1/24") }, "host bits"},
		{func(a *Announcement) { a.Prefix = netip.Prefix{} }, "host bits"},
		{func(a *Announcement) { a.Prefix = netip.MustParsePrefix("::ffff:192.0.2.0/120") }, "host bits"},
		{func(a *Announcement) { a.NextHop = netip.Addr{} }, "not a usable address"},
		{func(a *Announcement) { a.NextHop = netip.MustParseAddr("0.0.0.0") }, "not a usable address"},
		{func(a *Announcement) { a.NextHop = next6 }, ""}, // RFC 8950
		{func(a *Announcement) { a.Prefix = prefix6 }, "other family"},
		{func(a *Announcement) { a.NextHop = netip.MustParseAddr("fe80::1%eth0") }, "not a usable address"},
		{func(a *Announcement) { a.Communities = Communities{Blackhole} }, "blackhole"},
		{func(a *Announcement) { a.Communities = make(Communities, 300) }, ""}, // one, often
		{func(a *Announcement) { a.LargeCommunities = manyLarge(maxCommunities) }, ""},
		{func(a *Announcement) { a.LargeCommunities = manyLarge(maxCommunities + 1) }, "101 communities"},
		{func(a *Announcement) { a.ExtendedCommunities = ExtendedCommunities{0x0601020000000001} }, "reserves"},
		{func(a *Announcement) { a.Neighbors = []netip.Addr{{}} }, "neighbors[0]"},
	}
	for i, test := range tests {
		a := announcement4()
		test.change(&a)
		_, err := normalizeSet([]Announcement{a})
		if got := err == nil; got != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%d: error %v, want %q", i, err, test.want)
		}
	}
	if _, err := normalizeSet([]Announcement{announcement4(), announcement6(), announcement4()}); err == nil ||
		!strings.Contains(err.Error(), "announcements[2]: 192.0.2.0/24 is listed twice") {
		t.Errorf("a repeated prefix: %v", err)
	}
}

func manyLarge(n int) LargeCommunities {
	cs := make(LargeCommunities, n)
	for i := range cs {
		cs[i].Data1 = uint32(i)
	}
	return cs
}

func TestCommunities(t *testing.T) {
	for text, want := range map[string]uint32{
		"64512:100":           0xFC000064,
		"0:0":                 0,
		"65535:65535":         math.MaxUint32,
		"graceful-shutdown":   0xFFFF0000,
		"blackhole":           0xFFFF029A,
		"no-export":           0xFFFFFF01,
		"no-advertise":        0xFFFFFF02,
		"no-export-subconfed": 0xFFFFFF03,
	} {
		got, err := ParseCommunity(text)
		if err != nil || got != want {
			t.Errorf("ParseCommunity(%q) = %#x, %v, want %#x", text, got, err, want)
		}
		if back := FormatCommunity(got); back != text {
			t.Errorf("FormatCommunity(%#x) = %q, want %q", got, back, text)
		}
	}
	if c, err := ParseCommunity("65535:0"); err != nil || c != GracefulShutdown {
		t.Errorf("65535:0 is %#x, %v", c, err)
	}
	for _, text := range []string{"", ":", "1", "1:", ":1", "65536:0", "0:65536", "-1:0", "1:2:3", "0x1:1", "+1:1", " 1:1", "Blackhole"} {
		if c, err := ParseCommunity(text); err == nil {
			t.Errorf("ParseCommunity(%q) = %#x, want an error", text, c)
		}
	}
	if text := (Communities{GracefulShutdown, 1<<16 | 2}).String(); text != "graceful-shutdown 1:2" {
		t.Errorf("communities print as %q", text)
	}
	var none Communities
	if text, err := json.Marshal(none); err != nil || string(text) != "[]" {
		t.Errorf("no communities are %s, %v", text, err)
	}
}

// TestStatusJSON writes and reads the Status of a Speaker that never ran.
func TestStatusJSON(t *testing.T) {
	cfg := Config{ASN: 64512, RouterID: netip.MustParseAddr("10.0.0.1"), Neighbors: []Neighbor{
		{Address: netip.MustParseAddr("10.0.0.254"), ASN: 64500, Password: "secret"},
	}}
	s, err := NewSpeaker(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	a := announcement6()
	a.Communities = append(a.Communities, GracefulShutdown)
	if err := s.Set(t.Context(), []Announcement{a, announcement4()}); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(s.Status(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "asn": 64512,
  "router_id": "10.0.0.1",
  "announcements": [
    {
      "prefix": "192.0.2.0/24",
      "next_hop": "203.0.113.7",
      "as_path": [
        64512
      ],
      "med": 10,
      "communities": []
    },
    {
      "prefix": "2001:db8:1::/48",
      "next_hop": "2001:db8:ffff::7",
      "as_path": [
        64512,
        64512,
        64512
      ],
      "med": 20,
      "communities": [
        "64512:7",
        "graceful-shutdown"
      ]
    }
  ],
  "neighbors": [
    {
      "address": "10.0.0.254",
      "port": 179,
      "asn": 64500,
      "state": "idle",
      "sessions": 0,
      "refused_updates": 0,
      "received": {
        "open": 0,
        "update": 0,
        "notification": 0,
        "keepalive": 0,
        "route_refresh": 0
      },
      "sent": {
        "open": 0,
        "update": 0,
        "notification": 0,
        "keepalive": 0,
        "route_refresh": 0
      },
      "adj_rib_out": []
    }
  ]
}`
	if string(text) != want {
		t.Errorf("status is\n%s\nwant\n%s", text, want)
	}
	var back Status
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.MarshalIndent(back, "", "  ")
	if err != nil || !reflect.DeepEqual(text, again) {
		t.Errorf("read back: %v\n%s", err, again)
	}
}
