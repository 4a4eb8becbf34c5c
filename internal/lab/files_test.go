package lab

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"anyedge/configs"
)

// labOf is a lab of n points of presence on a ring around the globe.
func labOf(n int) *configs.Lab {
	cfg := configs.DefaultLab()
	cfg.Pops = nil
	for i := range n {
		cfg.Pops = append(cfg.Pops, configs.LabPop{
			Name: fmt.Sprintf("p%d", i), Region: "r", Latitude: float64(i), Longitude: float64(i*40 - 180), Origins: 1 + i%8,
		})
	}
	return cfg
}

func TestLayoutAddressesAreDistinct(t *testing.T) {
	l := newLayout(netip.MustParsePrefix("127.77.0.0/16"))
	owner := make(map[netip.AddrPort]string)
	claim := func(a netip.AddrPort, who string) {
		if other, taken := owner[a]; taken {
			t.Errorf("%s and %s share %s", who, other, a)
		}
		if !netip.MustParsePrefix("127.77.0.0/16").Contains(a.Addr()) {
			t.Errorf("%s has %s, outside the network", who, a)
		}
		owner[a] = who
	}
	claim(l.status(), "status page")
	claim(l.router(), "router")
	claim(l.fleet(), "fleet store")
	claim(l.dns(), "dns")
	claim(l.dnsAdmin(), "dns admin")
	claim(l.anycast(portTLS), "anycast")
	claim(l.anycast(portClear), "anycast in clear")
	for n := range 8 {
		for _, port := range []uint16{portTLS, portClear, portAdmin} {
			claim(netip.AddrPortFrom(l.pop(n), port), fmt.Sprintf("pop %d", n))
		}
		for o := range 8 {
			claim(l.origin(n, o), fmt.Sprintf("origin %d of pop %d", o, n))
		}
		claim(l.spareOrigin(n, 8), fmt.Sprintf("spare origin of pop %d", n))
	}
}

func TestEveryWrittenConfigIsValid(t *testing.T) {
	cases := map[string]*configs.Lab{"default": configs.DefaultLab()}
	for n := 2; n <= 8; n++ {
		cases[fmt.Sprintf("%d pops", n)] = labOf(n)
	}
	v4 := configs.DefaultLab()
	v4.Prefixes = v4.Prefixes[:1]
	cases["IPv4 only"] = v4
	// Names that YAML takes for something else when they stand bare.
	odd := labOf(8)
	for i, name := range []string{"1", "true", "null", "1e3", "0x1f", "1.5", "2001-01-01", "off"} {
		odd.Pops[i].Name, odd.Pops[i].Region = name, name
	}
	odd.Zone = "1.5"
	odd.Pops[0].Latitude, odd.Pops[0].Longitude = 1e-7, -1e-21
	odd.Clients = []configs.LabClients{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Latitude: 1e-7, Longitude: 3}}
	cases["odd names"] = odd

	for name, cfg := range cases {
		t.Run(name, func(t *testing.T) {
			l := newTestLab(t, cfg)
			if kind, err := configs.Check(l.path("gslb.yaml")); err != nil || kind != configs.KindGSLB {
				t.Errorf("gslb.yaml: kind %q, %v", kind, err)
			}
			for i, p := range cfg.Pops {
				file := l.path(p.Name + ".yaml")
				if kind, err := configs.Check(file); err != nil || kind != configs.KindPop {
					t.Errorf("kind %q, %v", kind, err)
					continue
				}
				c, err := configs.LoadPop(file)
				if err != nil {
					t.Fatal(err)
				}
				if c.Node.Name != nodeName(p) || c.Node.Pop != p.Name || c.Node.Region != p.Region ||
					c.Node.Latitude != p.Latitude || c.Node.Longitude != p.Longitude {
					t.Errorf("%s is %+v, want %+v", file, c.Node, p)
				}
				if c.Listeners[0].Address.Addr() != l.layout.pop(i) || c.Pools[0].Inventory != poolName(p) || !slices.Equal(c.BGP.Prefixes, cfg.Prefixes) {
					t.Errorf("%s: listener %s, inventory %s, prefixes %v", file, c.Listeners[0].Address, c.Pools[0].Inventory, c.BGP.Prefixes)
				}
			}
		})
	}
}

func TestSecretsAreTheOwnersOnly(t *testing.T) {
	l := newTestLab(t, configs.DefaultLab())
	if info, err := os.Stat(l.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: mode %v, %v", info.Mode(), err)
	}
	files, err := filepath.Glob(l.path("*"))
	if err != nil || len(files) < 8 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", file, info.Mode(), err)
		}
	}
}

func TestCertificateIsForTheServiceName(t *testing.T) {
	l := newTestLab(t, configs.DefaultLab())
	pair, err := tls.LoadX509KeyPair(l.path("www.crt"), l.path("www.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{l.host(): true, l.layout.pop(2).String(): true, "evil." + l.cfg.Zone: false} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: l.secrets.roots, CurrentTime: time.Now()})
		if (err == nil) != want {
			t.Errorf("for %s: %v, want valid %v", name, err, want)
		}
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: l.secrets.roots, CurrentTime: time.Now().Add(8 * 24 * time.Hour)}); err == nil {
		t.Error("valid for more than a week")
	}
}
